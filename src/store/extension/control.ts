/**
 * The control file of the extension.
 */

/** What CREATE EXTENSION calls it. */
export const extensionName = "litmus_pgnats";

/** The first line of the files that are ours. */
export const fileMark = "Made by hawser extension";

/** The file `litmus_pgnats.control`. It names no schema: the functions go where CREATE EXTENSION says, else to the first of the path. */
export function controlFile(version: string): string {
  return `# ${extensionName}. ${fileMark}.
comment = 'NATS from SQL, over Hawser: the script installs, and the extension owns nothing'
default_version = '${version}'
encoding = 'UTF8'
relocatable = false
superuser = true
trusted = false
`;
}
