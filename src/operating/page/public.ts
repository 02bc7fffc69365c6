/** Exports of `hawser/page`. */

export type { PageSettingsInput } from "../../../generated/ts/settings/page.js";
export { type Page, type PageOptions, page } from "./index.js";
