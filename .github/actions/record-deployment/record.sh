#!/usr/bin/env bash
# Records a deployment with a hub; see action.yml for what the variables mean. Bash and curl, and nothing else: no jq,
# no checkout. Secrets go to curl over its standard input, because arguments show in the process list.
# shellcheck disable=SC2153 # the variables in capitals come from action.yml
set -euo pipefail

# A workflow command: the message shows on the run's page. It is one line, with %0A for the end of one.
fail() {
    local message=${*//'%'/%25}
    message=${message//$'\r'/%0D}
    echo "::error::${message//$'\n'/%0A}" >&2
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

identity() {
    [ -n "${ACTIONS_ID_TOKEN_REQUEST_URL-}" ] ||
        fail "this job can't prove its identity: it needs permissions: {id-token: write}"
    local answer
    answer=$(curl --silent --show-error --fail --retry 5 --retry-all-errors --max-time 20 --config - \
        --get --data-urlencode "audience=${AUDIENCE:-$(plain "$HUB_URL")}" "$ACTIONS_ID_TOKEN_REQUEST_URL" \
        <<<"header = \"Authorization: Bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN\"") || fail "GitHub gave no identity"
    [[ $answer =~ \"value\"[[:space:]]*:[[:space:]]*\"([^\"]+)\" ]] || fail "GitHub gave no identity"
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
# By a file, for an argument has an end, and a file that begins with an @ would name another.
payload=$(mktemp)
answer=$(mktemp)
trap 'rm -f "$payload" "$answer"' EXIT
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
status=$(curl --silent --show-error --retry 5 --retry-all-errors --max-time 20 --config - \
    --header "Content-Type: application/json" --data-binary "@$payload" --header "Idempotency-Key: $key" \
    --output "$answer" --write-out '%{http_code}' "${HUB_URL%/}/deployments" \
    <<<"header = \"Authorization: Bearer $token\"") || fail "$(plain "$HUB_URL") can't be reached"
record=$(<"$answer")
case $status in
    200) repeat=true ;;
    201) repeat=false ;;
    *) fail "$(plain "$HUB_URL") answers $status: $(reason "$record")" ;;
esac

pattern='"deployedAt":([0-9]+).*"rollback":(true|false)'
[[ $record =~ $pattern ]] || fail "$(plain "$HUB_URL") is no hub: ${record:0:200}"
printf '%s\n' "deployed-at=${BASH_REMATCH[1]}" "repeat=$repeat" "rollback=${BASH_REMATCH[2]}" \
    >>"${GITHUB_OUTPUT:-/dev/null}"
said=$([ "$repeat" = true ] && echo "Recorded before, nothing has changed" || echo Recorded)
printf '%s:\n%s\n%s\n%s\n' "$said" '```json' "$record" '```' >>"${GITHUB_STEP_SUMMARY:-/dev/null}"
echo "$said: $record"
