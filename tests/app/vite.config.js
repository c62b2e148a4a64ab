import vectr0 from "vectr0/vite";
import { defineConfig } from "vite";

export default defineConfig({
    plugins: [vectr0()],
    resolve: { preserveSymlinks: true },
    build: {
        sourcemap: true,
        rollupOptions: {
            output: {
                manualChunks: (id) => (id.includes("/node_modules/") ? "vendor" : undefined),
            },
        },
    },
    // Only what this says differs between two versions of the source; see build.mjs.
    define: { __SOURCE__: JSON.stringify(process.env.SAMPLE_SOURCE ?? "1") },
});
