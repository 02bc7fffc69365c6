/**
 * The NATS half of `hawser init`, installed by a role that is no superuser.
 */
import { beforeAll, describe, expect, it } from "vitest";
import { install, publicFunctionCount, uninstall } from "../../src/operating/installation/index.js";
import { testDatabase } from "../support/database.js";
import { limitedInstaller } from "../support/limited-installer.js";
import { onServer, rowsOf } from "../support/on-server.js";
import {
  expectToReachDblink,
  lacking,
  loginIsMissing,
  onlySuperusers,
  remedyOf,
  wrappersMissing,
} from "./support/missing-privileges.js";

async function ownersOf(url: string): Promise<unknown[]> {
  const rows = await rowsOf(
    url,
    "SELECT DISTINCT pg_get_userbyid(proowner) AS owner FROM pg_proc WHERE proname ~ '^nats_p'",
  );
  return rows.map(({ owner }) => owner);
}

describe("a role that is no superuser", () => {
  // The roles belong to the cluster: here they were made by somebody else.
  beforeAll(async () => {
    await using first = await testDatabase({ migrated: false });
    await install({ databaseUrl: first.url });
  });

  it("installs what works, over the dblink that was made for it, and names what only a superuser may do", async () => {
    await using limited = await limitedInstaller();
    const foreseen = await install({ databaseUrl: limited.installerUrl, dryRun: true });
    const { nats, missingPrivileges } = await install({ databaseUrl: limited.installerUrl });
    expect(nats).toEqual({
      schema: "public",
      dblinkSchema: "hawser_dblink",
      functions: publicFunctionCount,
      wrappers: [],
      eventTriggers: false,
      warnings: [],
    });
    for (const report of [missingPrivileges, foreseen.missingPrivileges]) {
      expect(lacking(report)).toEqual(onlySuperusers);
      expect(report).toContainEqual(loginIsMissing);
    }
    expect(await ownersOf(limited.superuserUrl)).toEqual([limited.role]);
    await expectToReachDblink(limited.superuserUrl);
    // The other way to say which server is used.
    await rowsOf(limited.installerUrl, `SELECT hawser.set_nats_server('{"host": "nats.internal"}')`);
    expect(await rowsOf(limited.installerUrl, "SELECT options FROM hawser_bridge_data.nats_server")).toEqual([
      { options: { host: "nats.internal" } },
    ]);
    // And again.
    expect(lacking((await install({ databaseUrl: limited.installerUrl })).missingPrivileges)).toEqual(onlySuperusers);
  });

  it("is told by a dry run what a real one does", async () => {
    await using limited = await limitedInstaller();
    const { sql } = await install({ databaseUrl: limited.installerUrl, dryRun: true });
    await onServer(limited.installerUrl, sql!);
    await expectToReachDblink(limited.superuserUrl);
    expect(await install({ databaseUrl: limited.installerUrl })).toMatchObject({
      migrations: [],
      nats: { functions: publicFunctionCount },
    });
  });

  it("is completed by a superuser, and goes on from there", async () => {
    await using limited = await limitedInstaller();
    const { missingPrivileges } = await install({ databaseUrl: limited.installerUrl });
    // Nobody but the superuser knows whether that role is to be trusted.
    const untrusted = `GRANT hawser_owner TO "${limited.role}"`;
    await expect(install({ databaseUrl: limited.superuserUrl })).rejects.toMatchObject({
      code: "name_occupied",
      message: expect.stringContaining(untrusted),
    });
    expect(remedyOf(missingPrivileges, wrappersMissing)).toBe(`${untrusted}; run \`hawser init\``);
    await onServer(limited.superuserUrl, untrusted);
    expect(await install({ databaseUrl: limited.superuserUrl })).toMatchObject({
      nats: { wrappers: ["litmus_pgnats_fdw", "pgnats_fdw"], eventTriggers: true },
      missingPrivileges: [],
    });
    expect(await ownersOf(limited.superuserUrl)).toEqual(["hawser_owner"]);
    await expectToReachDblink(limited.superuserUrl);
    expect(await install({ databaseUrl: limited.installerUrl })).toMatchObject({
      nats: { functions: publicFunctionCount, eventTriggers: true },
      missingPrivileges: [],
    });
    expect(await ownersOf(limited.superuserUrl)).toEqual(["hawser_owner"]);
  });

  it("without dblink leaves the functions out, and the statements that it names for a superuser are enough", async () => {
    await using limited = await limitedInstaller();
    await onServer(limited.superuserUrl, "DROP EXTENSION dblink", "DROP SCHEMA hawser_dblink");
    const missing = /^dblink is not installed, and "\w+" may not install it$/;
    const foreseen = await install({ databaseUrl: limited.installerUrl, dryRun: true });
    await onServer(limited.installerUrl, foreseen.sql!);
    const { nats, missingPrivileges } = await install({ databaseUrl: limited.installerUrl });
    expect(nats).toMatchObject({ dblinkSchema: null, functions: 0 });
    expect(lacking(missingPrivileges)).toEqual([expect.stringMatching(missing), ...onlySuperusers]);
    expect(lacking(foreseen.missingPrivileges)).toEqual([expect.stringMatching(missing), ...onlySuperusers]);

    await onServer(limited.superuserUrl, remedyOf(missingPrivileges, missing));
    const after = await install({ databaseUrl: limited.installerUrl });
    expect(after.nats).toMatchObject({ dblinkSchema: "hawser_dblink", functions: publicFunctionCount, warnings: [] });
    expect(lacking(after.missingPrivileges)).toEqual(onlySuperusers);
    await expectToReachDblink(limited.superuserUrl);
  });

  it("that is a member of hawser_owner keeps the functions where it cannot give them away, and they work", async () => {
    await using limited = await limitedInstaller();
    await onServer(
      limited.superuserUrl,
      `GRANT hawser_owner TO ${limited.role}`,
      "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    );
    const { missingPrivileges } = await install({ databaseUrl: limited.installerUrl });
    const staying = /^SQL functions in the schema "public" belong to "\w+" and not to "hawser_owner"$/;
    expect(missingPrivileges.map(({ what }) => what)).toEqual([expect.stringMatching(staying), ...onlySuperusers]);
    expect(await ownersOf(limited.superuserUrl)).toEqual([limited.role]);
    await expectToReachDblink(limited.superuserUrl);

    await onServer(limited.superuserUrl, remedyOf(missingPrivileges, staying));
    expect(lacking((await install({ databaseUrl: limited.installerUrl })).missingPrivileges)).toEqual(onlySuperusers);
    expect(await ownersOf(limited.superuserUrl)).toEqual(["hawser_owner"]);
    await expectToReachDblink(limited.superuserUrl);
  });

  it("that may no longer use dblink is told what gives it back", async () => {
    await using limited = await limitedInstaller();
    await onServer(
      limited.superuserUrl,
      `GRANT hawser_owner TO ${limited.role}`,
      "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    );
    await install({ databaseUrl: limited.installerUrl });
    await onServer(
      limited.superuserUrl,
      `REVOKE ALL ON SCHEMA hawser_dblink FROM ${limited.role}, hawser_owner CASCADE`,
    );
    const { missingPrivileges } = await install({ databaseUrl: limited.installerUrl });
    const unreachable = /^"\w+", whom the SQL functions belong to, may not use dblink in the schema "hawser_dblink"$/;
    expect(lacking(missingPrivileges)).toContainEqual(expect.stringMatching(unreachable));
    await onServer(limited.superuserUrl, remedyOf(missingPrivileges, unreachable));
    await expectToReachDblink(limited.superuserUrl);
  });

  it("that may not make functions in a schema is told so, and takes one of its own", async () => {
    await using limited = await limitedInstaller();
    await onServer(limited.superuserUrl, `REVOKE CREATE ON SCHEMA public FROM ${limited.role}, PUBLIC`);
    const refused = /^the SQL functions in the schema "public" are missing or of another version/;
    const foreseen = await install({ databaseUrl: limited.installerUrl, dryRun: true });
    const { nats, missingPrivileges } = await install({ databaseUrl: limited.installerUrl });
    expect(nats).toMatchObject({ functions: 0 });
    expect(lacking(missingPrivileges)).toEqual([expect.stringMatching(refused), ...onlySuperusers]);
    expect(lacking(foreseen.missingPrivileges)).toEqual([expect.stringMatching(refused), ...onlySuperusers]);
    expect(missingPrivileges.find(({ what }) => refused.test(what))!.what).toContain(
      "permission denied for schema public",
    );

    await rowsOf(limited.installerUrl, "CREATE SCHEMA bus");
    const own = await install({ databaseUrl: limited.installerUrl, nats: { schema: "bus" } });
    expect(own.nats).toMatchObject({ schema: "bus", functions: publicFunctionCount });
    expect(lacking(own.missingPrivileges)).toEqual(onlySuperusers);
    await expectToReachDblink(limited.superuserUrl, "SELECT bus.nats_publish_text('a', 'b')");
  });

  it("with wrappers that were made beforehand is told how they get their validator", async () => {
    await using limited = await limitedInstaller({ foreignDataWrappers: true });
    const { nats, missingPrivileges } = await install({ databaseUrl: limited.installerUrl });
    expect(nats).toMatchObject({ wrappers: [] });
    await onServer(
      limited.superuserUrl,
      remedyOf(missingPrivileges, wrappersMissing).replace(/; run `hawser init`$/, ""),
    );
    await install({ databaseUrl: limited.superuserUrl });
    const after = await install({ databaseUrl: limited.installerUrl });
    expect(after.nats).toMatchObject({ wrappers: ["litmus_pgnats_fdw", "pgnats_fdw"] });
    expect(lacking(after.missingPrivileges)).toEqual([]);
    // It is looked up, as `hawser serve` does.
    await rowsOf(limited.installerUrl, "CREATE SERVER n FOREIGN DATA WRAPPER pgnats_fdw OPTIONS (host 'a')");
    expect(await rowsOf(limited.installerUrl, "SELECT hawser.follow_nats_server() AS changed")).toEqual([
      { changed: true },
    ]);
  });

  it("removes again what it has installed", async () => {
    await using limited = await limitedInstaller();
    await install({ databaseUrl: limited.installerUrl });
    expect(await uninstall({ databaseUrl: limited.installerUrl })).toMatchObject({
      functions: publicFunctionCount,
      dblink: false,
      missingPrivileges: [],
    });
  });
});
