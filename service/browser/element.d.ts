/** What the notification says; `{}` stands for how long ago that was, or for the number. */
export interface Texts {
    /** The heading, such as "New version available!" */
    title: string;
    /** The heading where an earlier build has come back. */
    rollback: string;
    /** That a refresh still gave the old version. */
    note: string;
    /** "Build #{}", in every language */
    build: string;
    /** Such as "Deployed {}" */
    time: string;
    refresh: string;
    later: string;
    /** What the × is called. */
    close: string;
}

/**
 * `<update-notification>`: tells a visitor that another version was deployed, and lets them have it.
 *
 * Its attributes: `hub`, `app`, `environment` and `base` as the options of `watchVersion`; `version`, `commit`,
 * `build`, `time` (milliseconds since 1970, or a date) and `tag`, what the page runs; `caches`, the names of those that
 * a refresh deletes, with spaces between; `lang`.
 *
 * Its custom properties: `--vectr0-background`, `-color`, `-accent`, `-accent-color`, `-radius`, `-font`, `-inset`,
 * `-z-index`. Its parts: `card`, `header`, `title`, `badge`, `note`, `details`, `build`, `time`, `commit`, `buttons`,
 * `refresh`, `later`, `close`.
 */
export class UpdateNotificationElement extends HTMLElement {
    /** The page's own words, in place of some or all of the element's. */
    texts?: Partial<Texts> | null;
}

declare global {
    interface HTMLElementTagNameMap {
        "update-notification": UpdateNotificationElement;
    }
}
