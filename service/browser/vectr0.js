/** VECTR0 for pages: know when another version of this application was deployed. */

export { isSame, isUpdate } from "./rule.js";
export { watchVersion } from "./watch.js";
