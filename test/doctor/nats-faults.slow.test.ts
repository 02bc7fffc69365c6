/**
 * Faults on the way from Postgres to NATS, and of NATS, seeded one at a time: each is named, with what to do, and nothing
 * else is.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { NamedFinding } from "../../src/operating/doctor/index.js";
import { hawser } from "../cli/support/hawser.js";
import type { OwnPostgres } from "../faults/support/own-postgres.js";
import { CertificateAuthority } from "../support/certificate-authority.js";
import { eventually } from "../support/eventually.js";
import { natsClient } from "../support/nats-client.js";
import { startNatsServer } from "../support/nats-server.js";
import { rowsOf } from "../support/on-server.js";
import { temporaryDirectory } from "../support/temporary.js";
import { found, onlyFinding, postgresWithPasswords, startSystem, subscribing } from "./support/system.js";

let postgres: OwnPostgres;

beforeAll(async () => {
  postgres = await postgresWithPasswords();
});

afterAll(async () => {
  await postgres?.[Symbol.asyncDispose]();
});

describe("the gateway", () => {
  it("that was stopped; who leads is not told as well", async () => {
    await using system = await startSystem(postgres);
    await system.run(...subscribing("doctor.gateway"));
    await system.led();
    expect((await system.examine()).findings).toEqual([]);
    await system.serve!.stop();
    // Where Postgres is slow, it takes the address away some time later.
    await eventually("its address is gone", async () => {
      return (await rowsOf(system.superuserUrl, "SELECT FROM hawser_bridge_data.gateways")).length === 0;
    });
    const report = await system.examine();
    const finding = onlyFinding(report);
    expect(finding).toMatchObject({ check: "gateway", severity: "error", code: "gateway_unavailable" });
    expect(finding.what).toContain("none is registered in hawser_bridge_data.gateways");
    expect(finding.remedy).toContain("hawser serve");
    expect(report.checks.find(({ check }) => check === "leader")).toMatchObject({
      outcome: "not_checked",
      why: "run again once `gateway` succeeds",
    });
  });

  it("that was killed, by its address and when it was last seen", async () => {
    await using system = await startSystem(postgres, { serve: false });
    // Nobody listens on port 1.
    await system.run(
      "INSERT INTO hawser_bridge_data.gateways (host, port, owner, seen_at) VALUES ('127.0.0.1', 1, 'gone', now() - interval '3 h')",
    );
    for (const login of ["in hawser_nats", "in hawser_bridge alone"]) {
      if (login !== "in hawser_nats") await system.run(`REVOKE hawser_nats FROM ${system.login}`);
      const finding = onlyFinding(await system.examine());
      expect(finding).toMatchObject({ check: "gateway", code: "gateway_unavailable" });
      expect(finding.what).toContain("registered: 127.0.0.1:1 (seen 3 h ago)");
    }
  });

  it("that another one has left behind", async () => {
    await using system = await startSystem(postgres);
    const holder = new pg.Client(system.superuserUrl);
    await holder.connect();
    try {
      await holder.query(
        "INSERT INTO hawser_bridge_data.gateways (host, port, owner, seen_at) VALUES ('gateway.invalid', 1, 'gone', now() - interval '3 h')",
      );
      // The running one would forget it when it looks the next time.
      await holder.query("BEGIN; SELECT FROM hawser_bridge_data.gateways WHERE owner = 'gone' FOR UPDATE");
      expect(found(await system.examine())).toEqual([{ check: "gateway", severity: "warning" }]);
    } finally {
      await holder.end();
    }
  });
});

describe("the NATS server", () => {
  it("that is not defined, though a gateway runs", async () => {
    await using system = await startSystem(postgres, { natsOptions: false });
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "nats-server", severity: "error", code: "nats_not_configured" });
    expect(finding.remedy).toContain("CREATE SERVER");
  });

  it("whose options are not right", async () => {
    await using system = await startSystem(postgres);
    await system.run(`UPDATE hawser_bridge_data.nats_server SET options = '{"username": "u"}'`);
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "nats-server", code: "nats_not_configured" });
    expect(finding.what).toContain("a user name needs password");
  });

  it("whose file of credentials cannot be used, with the reason once", async () => {
    await using system = await startSystem(postgres);
    await system.run(
      `UPDATE hawser_bridge_data.nats_server SET options = '{"host": "127.0.0.1", "creds_path": "/nowhere/x.creds"}'`,
    );
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "nats", code: "secret_file" });
    expect(finding.what.match(/it names no file/g)).toHaveLength(1);
  });

  it("that is not there", async () => {
    await using system = await startSystem(postgres, { natsUrl: "nats://127.0.0.1:1" });
    for (const login of ["in hawser_nats", "in hawser_bridge alone"]) {
      if (login !== "in hawser_nats") await system.run(`REVOKE hawser_nats FROM ${system.login}`);
      const finding = onlyFinding(await system.examine());
      expect(finding).toMatchObject({ check: "nats", severity: "error", code: "nats_unavailable" });
      expect(finding.what).toContain("127.0.0.1:1");
      expect(finding.remedy).toMatch(/^Start the NATS server, or name another one: SELECT hawser\.set_nats_server/);
    }
  });

  it("that refuses the password, which is not shown", async () => {
    await using nats = await startNatsServer({ config: 'authorization { user: "app", password: "s3cret-right" }' });
    const natsOptions = { username: "app", password: "s3cret-wrong" };
    await using system = await startSystem(postgres, { natsUrl: nats.url, natsOptions });
    const report = await system.examine();
    expect(onlyFinding(report)).toMatchObject({
      ...{ check: "nats", code: "nats_unauthorized" },
      remedy: expect.stringContaining(`SELECT hawser.set_nats_server('{"host": "…", …, "password": "…"}')`),
    });
    expect(JSON.stringify(report)).not.toContain("s3cret");
  });

  it("whose certificate is refused, without a remedy about the password", async () => {
    const { cert, key } = new CertificateAuthority().issue(["127.0.0.1"]);
    await using nats = await startNatsServer({
      config: 'tls { cert_file: "$DIR/cert.pem", key_file: "$DIR/key.pem" }',
      files: { "cert.pem": cert, "key.pem": key },
    });
    const directory = temporaryDirectory();
    const file = join(directory, "ca.pem");
    writeFileSync(file, new CertificateAuthority("Another authority").certificate, { mode: 0o600 });
    const natsOptions = { username: "app", password: "right", tls_ca_path: file };
    await using system = await startSystem(postgres, {
      ...{ natsUrl: nats.url, natsOptions, secretsDirectories: [directory] },
    });
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "nats", code: "nats_unauthorized" });
    expect(finding.what).toContain("the server's certificate");
    expect(finding.remedy).not.toContain("set_nats_server");
  });

  it("that refuses a password of user mappings which this login does not see", async () => {
    await using nats = await startNatsServer({ config: 'authorization { user: "app", password: "right" }' });
    await using system = await startSystem(postgres, { natsUrl: nats.url, natsOptions: false });
    await system.run(
      `CREATE SERVER nats FOREIGN DATA WRAPPER litmus_pgnats_fdw OPTIONS (host '127.0.0.1', port '${nats.port}', username 'app')`,
      `GRANT USAGE ON FOREIGN SERVER nats TO ${system.login}`,
      `CREATE USER MAPPING FOR ${system.login} SERVER nats OPTIONS (password 'wrong')`,
      `CREATE USER MAPPING FOR ${system.executor} SERVER nats OPTIONS (password 'wrong')`,
    );
    let finding: NamedFinding | undefined;
    await eventually("the gateway has followed", async () => {
      const { findings } = await system.examine({ databaseUrl: system.superuserUrl });
      finding = findings.find(({ code }) => code === "nats_unauthorized");
      return finding !== undefined;
    });
    expect(finding!.remedy).toMatch(
      /^Correct what was refused: the user mapping for \w+, \w+ of the server "nats" \(run /,
    );
    expect(finding!.remedy).not.toContain("SET ");
  });
});

describe("the permissions of the NATS user", () => {
  const natsOptions = { username: "app", password: "right" };
  const withPermissions = (permissions: string) =>
    startNatsServer({
      config: `authorization { users: [
        { user: app, password: right, permissions: ${permissions} }, { user: all, password: all }
      ] }`,
    });

  it("that lack a subject which a function is subscribed to", async () => {
    await using nats = await withPermissions('{ subscribe: { deny: ["hidden.>"] } }');
    await using system = await startSystem(postgres, { natsUrl: nats.url, natsOptions });
    await system.run(...subscribing("hidden.orders"), "SELECT nats_subscribe('open.orders', 'public.take'::regproc)");
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "nats-permissions", severity: "error", code: "nats_permission_denied" });
    expect(finding.what).toContain('may not subscribe to "hidden.orders":');
    expect(finding.remedy).toContain("subscribe: { allow:");
  });

  it.each([
    ["one subject", '{ publish: { deny: ["pgnats.>"] } }'],
    ["every subject", '{ publish: { deny: [">"] } }'],
  ])("that lack the subject of notices: without %s", async (_what, permissions) => {
    await using nats = await withPermissions(permissions);
    await using system = await startSystem(postgres, { natsUrl: nats.url, natsOptions });
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "nats-permissions", severity: "warning" });
    expect(finding.what).toContain('may not publish to "pgnats.postgresql.replication.status" (notify_subject)');
  });

  it("are asked for without a message to anybody", async () => {
    await using nats = await withPermissions("{}");
    await using witness = await natsClient({ servers: nats.url, user: "all", pass: "all" });
    const seen: string[] = [];
    witness.subscribe(">", { callback: (_error, message) => void seen.push(message.subject) });
    await witness.flush();
    await using system = await startSystem(postgres, { natsUrl: nats.url, natsOptions });
    await system.run(...subscribing("doctor.quiet"));
    const isNotice = (subject: string) => subject === "pgnats.postgresql.replication.status";
    await eventually("serve has told the role of Postgres", () => seen.some(isNotice));
    seen.length = 0;
    expect((await system.examine()).findings).toEqual([]);
    await witness.flush();
    expect(seen.filter((subject) => !subject.startsWith("$"))).toEqual([]);
  });

  it("are not asked for where the credentials are another login's", async () => {
    await using nats = await withPermissions('{ subscribe: { deny: ["hidden.>"] } }');
    await using system = await startSystem(postgres, { natsUrl: nats.url, natsOptions: false, serve: false });
    await system.run(
      `CREATE SERVER nats FOREIGN DATA WRAPPER litmus_pgnats_fdw OPTIONS (host '127.0.0.1', port '${nats.port}', username 'app')`,
      `CREATE USER MAPPING FOR ${system.login} SERVER nats OPTIONS (password 'right')`,
    );
    const { checks } = await system.examine({ databaseUrl: system.superuserUrl });
    expect(checks.find(({ check }) => check === "nats-server")).toMatchObject({
      outcome: "ok",
      why: `the user mapping for ${system.login} is part of the definition: run \`hawser doctor\` as the login of \`hawser serve\``,
    });
    const { stdout } = await hawser(["doctor"], { databaseUrl: system.superuserUrl });
    expect(stdout).toMatch(/^Partly checked: nats-server: the user mapping for /m);
  });

  it("are asked for only where the secret files are, which is said", async () => {
    await using nats = await withPermissions("{}");
    const directory = temporaryDirectory();
    const file = join(directory, "password");
    writeFileSync(file, "right", { mode: 0o600 });
    await using system = await startSystem(postgres, {
      ...{ natsUrl: nats.url, natsOptions: { username: "app", password_path: file }, secretsDirectories: [directory] },
    });
    const { findings, checks } = await system.examine();
    expect(findings).toEqual([]);
    expect(checks.find(({ check }) => check === "nats-permissions")!.why).toMatch(
      /: run it where `hawser serve` runs, with its --secrets-dir$/,
    );
  });
});

describe("secrets", () => {
  it("in the options of the foreign server, which every role can read", async () => {
    await using nats = await startNatsServer({ config: 'authorization { token: "s3cret" }' });
    await using system = await startSystem(postgres, { natsUrl: nats.url, natsOptions: false });
    await system.run(
      `CREATE SERVER "my nats" FOREIGN DATA WRAPPER litmus_pgnats_fdw OPTIONS (host '127.0.0.1', port '${nats.port}', token 's3cret')`,
    );
    await eventually("the gateway has followed", async () => (await system.examine()).ok);
    const report = await system.examine();
    expect(onlyFinding(report)).toMatchObject({
      check: "secrets",
      severity: "warning",
      what: 'every role can read the option token of the foreign server "my nats"',
      remedy: expect.stringContaining('ALTER SERVER "my nats" OPTIONS (DROP token)'),
    });
    expect(JSON.stringify(report)).not.toContain("s3cret");
  });
});
