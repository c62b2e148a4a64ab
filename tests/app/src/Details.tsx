declare const __SOURCE__: string;

export default function Details() {
    return (
        <dl data-testid="shown-details">
            <dt>Application</dt>
            <dd>
                {__APP_NAME__}/{__ENVIRONMENT__}
            </dd>
            <dt>Commit</dt>
            <dd data-testid="commit">{__GIT_COMMIT__}</dd>
            <dt>Tag</dt>
            <dd data-testid="tag">{__GIT_TAG__ ?? "none"}</dd>
            <dt>Built</dt>
            <dd>
                <time dateTime={new Date(__BUILD_TIME__).toISOString()}>{__BUILD_TIME__}</time>
            </dd>
            <dt>Source</dt>
            <dd data-testid="source">{__SOURCE__}</dd>
        </dl>
    );
}
