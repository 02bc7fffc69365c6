import { expect, it } from "vitest";
import { urlsOrEnvironment } from "../../src/foundation/sql-clients/index.js";

const env = { HAWSER_DATABASE_URL: "postgres://env/database", HAWSER_SESSION_URL: "postgres://env/session" };

it.each([
  ["neither is given", {}, env, { databaseUrl: "postgres://env/database", sessionUrl: "postgres://env/session" }],
  [
    "databaseUrl is given: the session of the environment belongs to another database",
    { databaseUrl: "postgres://own/database" },
    env,
    { databaseUrl: "postgres://own/database", sessionUrl: undefined },
  ],
  [
    "sessionUrl is given",
    { sessionUrl: "postgres://own/session" },
    env,
    { databaseUrl: "postgres://env/database", sessionUrl: "postgres://own/session" },
  ],
  [
    "the variables are empty, as a shell makes them of what is not set",
    {},
    { HAWSER_DATABASE_URL: "", HAWSER_SESSION_URL: "" },
    { databaseUrl: undefined, sessionUrl: undefined },
  ],
] as const)("takes the URLs that there are: %s", (_, given, variables, expected) => {
  expect(urlsOrEnvironment(given, variables)).toEqual(expected);
});

it("refuses an empty option, which is no URL", () => {
  expect(() => urlsOrEnvironment({ databaseUrl: "" }, env)).toThrow(/^databaseUrl is not a connection URI/);
});
