/** What has to happen before a reload so that it brings the new version. */

const LONGEST_STEP = 3_000;

/** Ask a waiting service worker to take over, then delete the caches; each has three seconds. */
export async function clear(names) {
    await inTime(takeOver());
    await inTime(deleteCaches(names));
}

async function takeOver() {
    const { serviceWorker } = navigator;
    const registration = await serviceWorker?.getRegistration();
    if (registration?.waiting) {
        const changed = new Promise((resolve) => serviceWorker.addEventListener("controllerchange", resolve));
        registration.waiting.postMessage({ type: "SKIP_WAITING" });
        await changed;
    }
}

async function deleteCaches(names) {
    const { caches } = globalThis;
    await Promise.allSettled((names ?? (await caches.keys())).map((name) => caches.delete(name)));
}

/** Whatever goes wrong here, or takes too long, a reload without it is better than none. */
function inTime(work) {
    return Promise.race([work.catch(() => {}), new Promise((resolve) => setTimeout(resolve, LONGEST_STEP))]);
}
