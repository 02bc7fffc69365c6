/**
 * The installing role that other tests use: what it may do, and what it may not.
 */
import { describe, expect, inject, it } from "vitest";
import { dblinkSchema, limitedInstaller } from "../support/limited-installer.js";
import { onServer, rowsOf } from "../support/on-server.js";

const denied = { code: "42501" };

describe("an installing role that is not superuser", () => {
  it("makes schemas, and functions in public, and nothing that is for superusers", async () => {
    await using installer = await limitedInstaller();
    await onServer(
      installer.installerUrl,
      "CREATE SCHEMA mine",
      "CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    );
    const owners = "SELECT pg_get_userbyid(nspowner) AS owner FROM pg_namespace WHERE nspname = 'mine'";
    expect(await rowsOf(installer.superuserUrl, owners)).toEqual([{ owner: installer.role }]);
    for (const statement of [
      "CREATE EXTENSION file_fdw",
      "CREATE FOREIGN DATA WRAPPER mine",
      "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION pg_catalog.now()",
      "CREATE ROLE mine",
      `ALTER EXTENSION dblink SET SCHEMA ${dblinkSchema}`,
      `SELECT ${dblinkSchema}.dblink_connect_u('mine', 'dbname=postgres')`,
    ]) {
      await expect(onServer(installer.installerUrl, statement), statement).rejects.toMatchObject(denied);
    }
    const without = onServer(installer.installerUrl, "CREATE SERVER one FOREIGN DATA WRAPPER pgnats_fdw");
    await expect(without).rejects.toMatchObject({ code: "42704" });
  });

  it("may use dblink, and let others use it, who may not without that", async () => {
    const installer = await limitedInstaller();
    const { role, installerUrl, superuserUrl } = installer;
    // It names a connection that is not there: whoever may call it gets that far.
    const call = `SELECT ${dblinkSchema}.dblink_disconnect('nobody')`;
    const called = { message: expect.stringContaining("nobody") };
    await expect(onServer(installerUrl, call)).rejects.toMatchObject(called);

    const stranger = `${role}_stranger`;
    await onServer(superuserUrl, `CREATE ROLE ${stranger}`);
    try {
      const callAsStranger = () => onServer(superuserUrl, `SET ROLE ${stranger}; ${call}`);
      await expect(callAsStranger()).rejects.toMatchObject(denied);
      await onServer(installerUrl, `GRANT USAGE ON SCHEMA ${dblinkSchema} TO ${stranger}`);
      await expect(callAsStranger()).rejects.toMatchObject(denied);
      await onServer(installerUrl, `GRANT EXECUTE ON FUNCTION ${dblinkSchema}.dblink_disconnect(text) TO ${stranger}`);
      await expect(callAsStranger()).rejects.toMatchObject(called);
    } finally {
      // With the role go the grants that it has made.
      await installer.drop();
      await onServer(inject("databaseUrl"), `DROP ROLE ${stranger}`);
    }
  });

  it("makes roles and servers where it may, and is gone with its database when it is disposed of", async () => {
    const installer = await limitedInstaller({ createRole: true, foreignDataWrappers: true });
    const made = `${installer.role}_made`;
    await onServer(
      installer.installerUrl,
      `CREATE ROLE ${made} NOLOGIN`,
      `DROP ROLE ${made}`,
      "CREATE SERVER one FOREIGN DATA WRAPPER litmus_pgnats_fdw",
      "CREATE SERVER two FOREIGN DATA WRAPPER pgnats_fdw",
      "CREATE USER MAPPING FOR CURRENT_USER SERVER one",
      "CREATE SCHEMA mine",
      "CREATE TABLE mine.one (n integer)",
    );
    await installer.drop();
    expect(await rowsOf(inject("databaseUrl"), `SELECT FROM pg_roles WHERE rolname = '${installer.role}'`)).toEqual([]);
  });
});
