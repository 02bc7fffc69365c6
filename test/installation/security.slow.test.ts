/**
 * What else `hawser init` makes of a dblink that is there already, and of objects that others have planted: the rules of
 * `security.test.ts` that take an installation each.
 */
import { beforeEach, describe, expect, it } from "vitest";
import { HawserError } from "../../src/foundation/errors/index.js";
import { install } from "../../src/operating/installation/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";
import { codeOf, deadGateway, login } from "./support/logins.js";
import { traps } from "./support/traps.js";

describe("an object that a caller puts into public", () => {
  it("does not come between whoever installs and what is meant", async () => {
    await using other = await testDatabase({ nats: false });
    await using author = await login(other.url);
    // As everybody could in Postgres 14.
    await onServer(other.url, `GRANT CREATE ON SCHEMA public TO ${author.role}`);
    await onServer(author.url, ...traps("public").filter((trap) => !/ public\.(dblink|gateway_call)/.test(trap)));
    expect(await install({ databaseUrl: other.url })).toMatchObject({ missingPrivileges: [] });
    expect(await install({ databaseUrl: other.url })).toMatchObject({ missingPrivileges: [] });
  });
});

describe("dblink that is installed already", () => {
  let database: TestDatabase;
  beforeEach(async () => {
    database = await testDatabase({ nats: false });
    return () => database.drop();
  });
  const failure = async (databaseUrl = database.url) => {
    const error = await install({ databaseUrl }).catch((thrown: unknown) => thrown);
    return error instanceof HawserError ? error : undefined;
  };
  const remedyOf = (message: string) => /Close it: (.*?)\. Roles that/.exec(message)![1]!;

  it("where everybody may use it can be used at one's own risk; moved to a private schema it is found there", async () => {
    await onServer(database.url, "CREATE EXTENSION dblink");
    const shared = await install({ databaseUrl: database.url, nats: { sharedDblink: true } });
    expect(shared).toMatchObject({ nats: { dblinkSchema: "public" }, missingPrivileges: [] });
    expect(shared.nats!.warnings).toEqual([
      expect.stringContaining('every role may call dblink in the schema "public"'),
    ]);
    await deadGateway(database.url);
    expect(await codeOf(database.url, "SELECT nats_flush()")).toBe("08001");
    // The risk is asked for each time.
    expect(await failure()).toMatchObject({ code: "dblink_shared" });
    await using other = await login(database.url);
    await onServer(
      database.url,
      "CREATE SCHEMA private",
      "ALTER EXTENSION dblink SET SCHEMA private",
      `GRANT USAGE ON SCHEMA private TO ${other.role}`,
    );
    const moved = await install({ databaseUrl: database.url });
    expect(moved).toMatchObject({ nats: { dblinkSchema: "private" }, missingPrivileges: [] });
    // Whoever else may use it is named.
    expect(moved.nats!.warnings).toEqual([expect.stringContaining(`"${other.role}" may call dblink`)]);
    expect(await codeOf(database.url, "SELECT nats_flush()")).toBe("08001");
  });

  it("whose functions were taken from PUBLIC may stay where it is", async () => {
    await onServer(
      database.url,
      "CREATE EXTENSION dblink",
      `DO $$ DECLARE f text; BEGIN FOR f IN SELECT oid::regprocedure FROM pg_proc WHERE proname ~ '^dblink' LOOP
         EXECUTE 'REVOKE EXECUTE ON FUNCTION ' || f || ' FROM PUBLIC'; END LOOP; END $$`,
    );
    expect(await install({ databaseUrl: database.url })).toMatchObject({
      nats: { dblinkSchema: "public", warnings: [] },
      missingPrivileges: [],
    });
  });

  it("is found under another name, too: a function of its library that everybody may call", async () => {
    await onServer(
      database.url,
      "CREATE FUNCTION public.connect_anywhere(text, text) RETURNS text LANGUAGE c AS '$libdir/dblink', 'dblink_connect'",
    );
    const error = await failure();
    expect(error).toMatchObject({
      code: "dblink_shared",
      message: expect.stringContaining("public.connect_anywhere(text,text)"),
    });
    await onServer(database.url, remedyOf(error!.message));
    expect(await install({ databaseUrl: database.url })).toMatchObject({ missingPrivileges: [] });
  });
});
