/**
 * Settings of the functions that Hawser installs, whichever generator prints them.
 *
 * - `search_path`: bodies qualify names with a schema, so nothing on a caller's path can shadow them.
 * - `jit = off`: a server with LLVM (Debian's, Ubuntu's, RDS's) compiles each statement whose estimated cost is above
 *   `jit_above_cost`. It does so at each execution, for a fraction of a second up to seconds, and a statement over many tables
 *   or a limit of unknown size has such an estimate, although it reads a few rows by an index.
 */
const pinnedSettings = ["search_path = pg_catalog, pg_temp", "jit = off"];

/**
 * Lines of CREATE FUNCTION that fix its settings.
 *
 * @param further settings beside those that all functions have, such as `row_security = off`
 */
export function functionSettings(further: readonly string[] = []): string[] {
  return [...pinnedSettings, ...further].map((setting) => `SET ${setting}`);
}
