/** The entry for pages: importing it gives them `<update-notification>`. */

import { define } from "./notification.js";

export { UpdateNotificationElement } from "./notification.js";

define();
