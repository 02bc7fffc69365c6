/**
 * Warnings that come from other tests: the databases of a run share their roles, and members of Hawser's roles come and go;
 * with HAWSER_TEST_INSTALLER the one who has installed the template is in them.
 */

/** In the place of an empty list of warnings in what is expected. */
export const noneButMembers = {
  asymmetricMatch: (lines: unknown): boolean =>
    Array.isArray(lines) &&
    lines.every((line: string) => /is a member of hawser_owner|was there before this installation, and "/.test(line)),
  toString: () => "no warnings but of members of roles",
};
