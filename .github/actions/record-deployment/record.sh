#!/usr/bin/env bash
# Records a deployment with a hub; see action.yml for what the variables mean. Bash and curl, and nothing else: no jq,
# no checkout. Secrets go to curl over its standard input, because arguments show in the process list.
# shellcheck disable=SC2153 # the variables in capitals come from action.yml
set -euo pipefail
# Texts are bytes here, so that no locale decides what a pattern matches.
export LC_ALL=C
shopt -s extglob

# Gives a text as it may stand in the log: one line of printable ASCII, in which neither the runner (::…:: at the
# beginning, ##[…] anywhere) nor Azure's (##vso[…]) finds a command. Bash can't tell a letter from what turns the
# direction of writing, so that what isn't ASCII shows as ?.
shown() {
    local text=${1:0:2000}
    text=${text//+([[:space:]])/ }
    text=${text//+([^ -~])/?}
    text=${text//##/# # }
    if [[ $text =~ ^\ *:: ]]; then text="?$text"; fi
    printf '%s' "$text"
}

# A workflow command: the message shows on the run's page.
fail() {
    local message
    message=$(shown "$*")
    echo "::error::${message//'%'/%25}" >&2
    exit 1
}

string() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\t'/\\t}
    text=${text//$'\r'/\\r}
    printf '"%s"' "${text//$'\n'/\\n}"
}

# Gives the JSON object $1 with the member $2 set to the string $3.
with() {
    local value='("([^"\\]|\\.)*"|[^],}[:space:]"]*)'
    if [[ $1 =~ ^(.*\"$2\"[[:space:]]*:[[:space:]]*)$value(.*)$ ]]; then
        printf '%s%s%s' "${BASH_REMATCH[1]}" "$(string "$3")" "${BASH_REMATCH[4]}"
    else
        printf '{"%s":%s,%s' "$2" "$(string "$3")" "${1#*\{}"
    fi
}

# Without the user:token@ that it may have.
plain() {
    local url=${1%/}
    if [[ $url =~ ^([^/]*://)([^/]*@)(.*)$ ]]; then url=${BASH_REMATCH[1]}${BASH_REMATCH[3]}; fi
    printf '%s' "$url"
}

number() {
    [[ $2 =~ ^(0|[1-9][0-9]*)$ ]] || fail "$1 must be a number, not $(string "$2")"
    printf '%s' "$2"
}

from_file() {
    local given
    for given in "$VERSION" "$COMMIT" "$BUILD_NUMBER" "$BUILD_TIME" "$TAG"; do
        [ -z "$given" ] || fail "only app and environment can be given with $FILE, which says what the build is"
    done
    local text
    text=$(<"$FILE")
    if [ -n "$APP" ]; then text=$(with "$text" appName "$APP"); fi
    if [ -n "$ENVIRONMENT" ]; then text=$(with "$text" environment "$ENVIRONMENT"); fi
    printf '%s' "$text"
}

from_inputs() {
    local tag=$TAG
    if [ -z "$tag" ] && [ "${GITHUB_REF_TYPE-}" = tag ]; then tag=$GITHUB_REF_NAME; fi
    local version=${VERSION:-${tag#v}}
    if [ -z "$APP" ] || [ -z "$ENVIRONMENT" ] || [ -z "$version" ]; then
        fail "there is no ${FILE:-file} here, so app, environment and version have to be given"
    fi
    local commit=${COMMIT:-${HEAD_SHA:-${GITHUB_SHA:-unknown}}}
    if [[ $commit =~ ^([0-9a-fA-F]{40}|[0-9a-fA-F]{64})$ ]]; then commit=${commit:0:7}; fi
    local build_number build_time
    build_number=$(number build-number "${BUILD_NUMBER:-${GITHUB_RUN_NUMBER:-0}}")
    build_time=$(number build-time "${BUILD_TIME:-$(date +%s)000}")
    if [ -n "$tag" ]; then tag=$(string "$tag"); fi
    printf '{"appName":%s,"version":%s,"gitCommit":%s,"buildNumber":%s,"buildTime":%s,"environment":%s,"gitTag":%s}' \
        "$(string "$APP")" "$(string "$version")" "$(string "$commit")" "$build_number" "$build_time" \
        "$(string "$ENVIRONMENT")" "${tag:-null}"
}

# Asks an address, with the bearer token $1 and curl's arguments behind it, and writes the answer, of 1 MiB at the most,
# to $answer and its status to $status. An attempt may take a third of the seconds that are left; curl begins none in the
# last third, so that all of them together end in time, whatever the server does.
ask() {
    local token=$1 left=$((TIMEOUT - SECONDS)) attempt
    shift
    [ "$left" -gt 0 ] || return 1
    attempt=$((left > 2 ? left / 3 : 1))
    # What curl says of a server may quote it.
    (
        # For an answer whose head doesn't say how long it is: --max-filesize minds only those that do.
        trap '' XFSZ
        ulimit -f 1024
        exec curl --silent --show-error --globoff --proto '=http,https' --max-filesize 1048576 \
            --max-time "$attempt" --retry 5 --retry-all-errors --retry-max-time "$((left > attempt ? left - attempt : 1))" \
            --config - --output "$answer" --write-out '%{http_code}' "$@" \
            <<<"header = \"Authorization: Bearer $token\"" 2>&1 >"$status"
    ) | while IFS= read -r line || [ -n "$line" ]; do
        printf '%s\n' "$(shown "$line")" >&2
    done
}

identity() {
    [ -n "${ACTIONS_ID_TOKEN_REQUEST_URL-}" ] ||
        fail "this job can't prove its identity: it needs permissions: {id-token: write}"
    ask "$ACTIONS_ID_TOKEN_REQUEST_TOKEN" --fail \
        --get --data-urlencode "audience=${AUDIENCE:-$(plain "$HUB_URL")}" "$ACTIONS_ID_TOKEN_REQUEST_URL" ||
        fail "GitHub gave no identity"
    [[ $(<"$answer") =~ \"value\"[[:space:]]*:[[:space:]]*\"([A-Za-z0-9_.~+/=-]+)\" ]] || fail "GitHub gave no identity"
    echo "${BASH_REMATCH[1]}"
}

# What a problem document (RFC 9457) says; of any other answer its beginning.
reason() {
    if [[ $1 =~ \"detail\"[[:space:]]*:[[:space:]]*\"(([^\"\\]|\\.)*)\" ]]; then
        local detail=${BASH_REMATCH[1]//\\\"/\"}
        printf '%s' "${detail//\\\\/\\}"
    else
        printf '%s' "${1:0:200}"
    fi
}

[[ $HUB_URL =~ ^https?://[^/] ]] || fail "the input url must be the hub's address, such as https://hub.example"
[[ $TIMEOUT =~ ^[1-9][0-9]{0,3}$ ]] || fail "the input timeout must be a number of seconds from 1 to 9999"
# By a file, for an argument has an end, and a file that begins with an @ would name another.
payload=$(mktemp)
answer=$(mktemp)
status=$(mktemp)
trap 'rm -f "$payload" "$answer" "$status"' EXIT
if [ -f "$FILE" ]; then from_file; else from_inputs; fi >"$payload"

if [ "$OIDC" = true ]; then
    token=$(identity)
    echo "::add-mask::$token"
else
    token=${HUB_TOKEN//[$' \t\r\n']/} # a secret that was pasted often ends a line
fi
[ -n "$token" ] || fail "there is no token: give the input token, or oidc: true where the hub trusts this repository"
[[ $token =~ ^[A-Za-z0-9_.~+/=-]+$ ]] || fail "the token holds characters that no token has"

# The key makes curl's own retries safe: what was answered 503 may have been stored all the same. Without --fail it
# doesn't retry what was refused.
key=${GITHUB_RUN_ID-}-${GITHUB_RUN_ATTEMPT-}-$(date +%s%N)-$RANDOM$RANDOM
hub=$(plain "$HUB_URL")
ask "$token" --header "Content-Type: application/json" --data-binary "@$payload" --header "Idempotency-Key: $key" \
    "$hub/deployments" || fail "$hub can't be reached"
record=$(<"$answer")
record=${record:0:16384}
case $(<"$status") in
    200) repeat=true ;;
    201) repeat=false ;;
    *) fail "$hub answers $(<"$status"): $(reason "$record")" ;;
esac

pattern='^\{.*"deployedAt":([0-9]{1,16}),.*"rollback":(true|false)'
[[ $record =~ $pattern ]] || fail "$hub is no hub: ${record:0:200}"
printf '%s\n' "deployed-at=${BASH_REMATCH[1]}" "repeat=$repeat" "rollback=${BASH_REMATCH[2]}" \
    >>"${GITHUB_OUTPUT:-/dev/null}"
said=$([ "$repeat" = true ] && echo "Recorded before, nothing has changed" || echo Recorded)
record=$(shown "$record") # one line that begins with a brace: it can't end the block of code
printf '%s:\n%s\n%s\n%s\n' "$said" '```json' "$record" '```' >>"${GITHUB_STEP_SUMMARY:-/dev/null}"
echo "$said: $record"
