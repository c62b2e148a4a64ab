postMessage(`worker ${__APP_VERSION__} ${__GIT_COMMIT__}`);
