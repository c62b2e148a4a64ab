import { lazy, Suspense, useEffect, useState } from "react";
import { UpdateNotification, useVersionCheck } from "vectr0/react";

const Details = lazy(() => import("./Details"));

export function App() {
    const { hasUpdate, updateInfo } = useVersionCheck();
    const [showsDetails, setShowsDetails] = useState(false);
    return (
        <main>
            <UpdateNotification />
            <h1>Sample</h1>
            <p>
                Version{" "}
                <strong id="version" data-testid="version">
                    {__APP_VERSION__}
                </strong>
                , build <span data-testid="build">{__BUILD_NUMBER__}</span>
            </p>
            <p data-testid="update">{hasUpdate ? `update to ${updateInfo?.version}` : "no update"}</p>
            <p data-testid="worker">{useWorkersVersion()}</p>
            <button type="button" data-testid="details" onClick={() => setShowsDetails(true)}>
                Details
            </button>
            {showsDetails && (
                <Suspense fallback="…">
                    <Details />
                </Suspense>
            )}
        </main>
    );
}

/** What a worker knows of its version: it has no document. */
function useWorkersVersion() {
    const [version, setVersion] = useState("");
    useEffect(() => {
        const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
        worker.onmessage = ({ data }) => setVersion(data);
        return () => worker.terminate();
    }, []);
    return version;
}
