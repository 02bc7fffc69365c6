/**
 * `hawser doctor`: what it prints, and its exit status. `doctor.slow.test.ts` has a whole system, with a Postgres of its own.
 */
import { stripVTControlCharacters } from "node:util";
import { describe, expect, it } from "vitest";
import { errorTable } from "../../src/foundation/errors/index.js";
import { silentServer } from "../doctor/support/silent-server.js";
import { testGateway } from "../support/gateway.js";
import { hawser, startHawser } from "./support/hawser.js";

describe("hawser doctor", () => {
  it("looks at the whole installation, and says how many checks it has done", async () => {
    await using gateway = await testGateway();
    const { stdout } = await hawser(["doctor", "--verbose"], { databaseUrl: gateway.database.url });
    // Other tests make roles in the same Postgres, which it may find something wrong with.
    expect(stdout).toMatch(/^ok {6}database: .* is connected to the database /m);
    expect(stdout).toMatch(/^ok {6}schema-objects: /m);
    expect(stdout).toMatch(/\d+ (?:checks )?of 30 (?:checks )?done\.\n$/);
  });

  it("tells what is wrong and what to do, and ends with 1", async () => {
    const databaseUrl = "postgres://u:s3cret@127.0.0.1:1/db";
    const { status, stdout } = await hawser(["doctor"], { databaseUrl });
    expect(status).toBe(1);
    expect(stdout).toMatch(
      /^error {3}database: nothing listens at 127\.0\.0\.1:1, where Postgres should be \[store_failed\]\n {8}remedy: Start Postgres.*\nNot checked until `database` succeeds: schema, login, version, /,
    );
    expect(stdout).toMatch(/\n1 error; 1 of 30 checks done\.\n$/);
    expect(stdout).not.toContain("s3cret");
    const { ok, findings } = JSON.parse((await hawser(["doctor", "--json"], { databaseUrl })).stdout);
    expect({ ok, findings }).toMatchObject({ ok: false, findings: [{ check: "database", severity: "error" }] });
  });

  it("is ended by SIGINT, also where Postgres hangs", async () => {
    await using hanging = await silentServer();
    const program = startHawser(["doctor"], { databaseUrl: `postgres://app@127.0.0.1:${hanging.port}/app` });
    await hanging.addressed;
    program.child.kill("SIGINT");
    expect(await program.ended).toMatchObject({ signal: "SIGINT" });
  });

  it("refuses an executor URL that a shell has made of nothing", async () => {
    const { status, stderr } = await hawser(["doctor", "--executor-url", ""], {
      databaseUrl: "postgres://127.0.0.1:1/db",
    });
    expect(status).toBe(errorTable.invalid_argument.exitStatus);
    expect(stripVTControlCharacters(stderr)).toContain("--executor-url is empty");
  });
});
