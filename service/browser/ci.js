/** What continuous integration systems call what a build wants to know of itself. */

/**
 * The environment variables of each field, in the order in which they are asked: the original's first, then each
 * system's own, which count only where the variable is set by which the system is known. A build may run on two of
 * them at once (`vercel build` in a workflow of GitHub), so that it is the field that decides, not the system.
 */
const VARIABLES = {
    appName: [["APP_NAME"]],
    version: [["VERSION"], ["npm_package_version"]],
    gitCommit: [
        ["GITHUB_SHA"],
        ["CI_COMMIT_SHA", "GITLAB_CI"],
        ["GIT_COMMIT", "JENKINS_URL"],
        ["CIRCLE_SHA1", "CIRCLECI"],
        ["BUILD_SOURCEVERSION", "TF_BUILD"],
        ["BITBUCKET_COMMIT", "BITBUCKET_BUILD_NUMBER"],
        ["BUILDKITE_COMMIT", "BUILDKITE"],
        ["COMMIT_REF", "NETLIFY"],
        ["VERCEL_GIT_COMMIT_SHA", "VERCEL"],
        ["CF_PAGES_COMMIT_SHA", "CF_PAGES"],
        ["WORKERS_CI_COMMIT_SHA", "WORKERS_CI"],
    ],
    gitTag: [
        ["GIT_TAG"],
        ["GITHUB_REF_NAME", "GITHUB_ACTIONS"],
        ["CI_COMMIT_TAG", "GITLAB_CI"],
        ["TAG_NAME", "JENKINS_URL"],
        ["CIRCLE_TAG", "CIRCLECI"],
        ["BUILD_SOURCEBRANCH", "TF_BUILD"],
        ["BITBUCKET_TAG", "BITBUCKET_BUILD_NUMBER"],
        ["BUILDKITE_TAG", "BUILDKITE"],
    ],
    buildNumber: [
        ["GITHUB_RUN_NUMBER"],
        ["CI_PIPELINE_IID", "GITLAB_CI"],
        ["BUILD_NUMBER", "JENKINS_URL"],
        ["CIRCLE_BUILD_NUM", "CIRCLECI"],
        ["BUILD_BUILDID", "TF_BUILD"],
        ["BITBUCKET_BUILD_NUMBER"],
        ["BUILDKITE_BUILD_NUMBER", "BUILDKITE"],
    ],
    buildTime: [],
    environment: [
        ["VECTR0_ENVIRONMENT"],
        ["ENVIRONMENT"],
        ["CI_ENVIRONMENT_NAME", "GITLAB_CI"],
        ["BITBUCKET_DEPLOYMENT_ENVIRONMENT", "BITBUCKET_BUILD_NUMBER"],
        ["CONTEXT", "NETLIFY"],
        ["VERCEL_TARGET_ENV", "VERCEL"],
        ["VERCEL_ENV", "VERCEL"],
    ],
};

/** Variables that don't always hold what they are asked for. */
const READ = {
    // On a pull request GITHUB_SHA is a merge that nobody pushed.
    GITHUB_SHA: (env, readJSON) => pullRequest(env, readJSON)?.head?.sha || env.GITHUB_SHA,
    GITHUB_REF_NAME: (env) => env.GITHUB_REF_TYPE === "tag" && env.GITHUB_REF_NAME,
    BUILD_SOURCEBRANCH: (env) => /^refs\/tags\/(.+)/.exec(env.BUILD_SOURCEBRANCH)?.[1],
    // A build that was started by hand may name no commit.
    BUILDKITE_COMMIT: (env) => env.BUILDKITE_COMMIT !== "HEAD" && env.BUILDKITE_COMMIT,
};

/**
 * Give what the environment says of a field, and the variable that says it; an empty one says nothing.
 * @param {string} field
 * @param {Record<string, string | undefined>} env
 * @param {(path: string) => any} readJSON gives undefined for what can't be read
 * @returns {{ value: string, from: string } | undefined}
 */
export function said(field, env, readJSON) {
    for (const [variable, mark] of VARIABLES[field]) {
        const value = !mark || env[mark] ? (READ[variable] ?? plain(variable))(env, readJSON) : undefined;
        if (value) {
            return { value, from: variable };
        }
    }
    return undefined;
}

function plain(variable) {
    return (env) => env[variable];
}

function pullRequest(env, readJSON) {
    const isOne = env.GITHUB_ACTIONS && env.GITHUB_EVENT_NAME === "pull_request" && env.GITHUB_EVENT_PATH;
    return isOne ? readJSON(env.GITHUB_EVENT_PATH)?.pull_request : undefined;
}
