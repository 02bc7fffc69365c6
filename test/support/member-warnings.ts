/**
 * Warnings that come from other tests: the databases of a run share their roles, and members of hawser_owner come and go.
 */

/** In the place of an empty list of warnings in what is expected. */
export const noneButMembers = {
  asymmetricMatch: (lines: unknown): boolean =>
    Array.isArray(lines) && lines.every((line: string) => line.includes("is a member of hawser_owner")),
  toString: () => "no warnings but of members of hawser_owner",
};
