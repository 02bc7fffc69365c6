/**
 * Findings of the check `database` where Postgres does not let a login in, with their remedies.
 */
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { doctor } from "../../src/operating/doctor/index.js";
import { CertificateAuthority } from "../support/certificate-authority.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";
import { temporaryDirectory } from "../support/temporary.js";
import { tlsFront } from "../support/tls-front.js";
import { onlyFinding } from "./support/system.js";

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase({ migrated: false });
});
afterAll(() => database.drop());

const findingAt = async (databaseUrl: string) => onlyFinding(await doctor({ databaseUrl, secretsDirectories: [] }));

describe("a limit of sessions", () => {
  async function refused(limit: (role: string) => string) {
    const role = `limited_${randomBytes(4).toString("hex")}`;
    await onServer(database.url, `CREATE ROLE ${role} LOGIN PASSWORD 'limited'`, limit(role));
    onTestFinished(() => onServer(database.url, `DROP ROLE ${role}`));
    const url = new URL(database.url);
    Object.assign(url, { username: role, password: "limited" });
    return { role, ...(await findingAt(url.href)) };
  }

  it("of the role is told apart from that of the server", async () => {
    const { role, remedy } = await refused((name) => `ALTER ROLE ${name} CONNECTION LIMIT 0`);
    expect(remedy).toMatch(new RegExp(`^ALTER ROLE "${role}" CONNECTION LIMIT -1, `));
  });

  it("of the database is told apart from that of the server", async () => {
    const { remedy } = await refused(() => `ALTER DATABASE ${database.name} CONNECTION LIMIT 0`);
    expect(remedy).toMatch(new RegExp(`^ALTER DATABASE "${database.name}" CONNECTION LIMIT -1, `));
  });
});

describe("the certificate of Postgres", () => {
  const authority = new CertificateAuthority();

  it.each([
    ["has expired", { fromDays: -2, untilDays: -1 }, "localhost", /^Renew it: ssl_cert_file /],
    ["is not valid yet", { fromDays: 1, untilDays: 2 }, "localhost", /clocks/],
    ["is for another host", {}, "127.0.0.1", /^Name the host as the certificate does/],
  ])("%s", async (what, options, host, remedy) => {
    const root = join(temporaryDirectory(), "root.pem");
    writeFileSync(root, authority.certificate);
    await using front = await tlsFront(database.url, authority.issue(["localhost"], options));
    const finding = await findingAt(front.url(host, `sslmode=verify-full&sslrootcert=${root}`));
    expect(finding.what).toMatch(new RegExp(`^the certificate of Postgres at ${host}:\\d+ ${what}$`));
    expect(finding.remedy).toMatch(remedy);
  });

  it("comes from an authority that is not trusted", async () => {
    await using front = await tlsFront(database.url, authority.issue(["localhost"]));
    const { what, remedy } = await findingAt(front.url("localhost", "sslmode=verify-full"));
    expect(what).toMatch(/ is signed by an authority that this machine does not trust$/);
    expect(remedy).toContain("sslrootcert");
  });
});
