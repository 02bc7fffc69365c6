import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { answers } from "../support/answers.js";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { rowsOf } from "../support/on-server.js";
import type { Program } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { announced, anyAnswers, dev } from "./support/dev.js";
import { hawser } from "./support/hawser.js";

describe("hawser dev", () => {
  it.each([["--port"], ["--nats-port"]])("takes no %s that is none", async (flag) => {
    const { status, stderr } = await hawser(["dev", flag, "postgres"]);
    expect(status).toBe(64);
    expect(stderr).toContain(`${flag} "postgres" is not a whole number from 0 to 65535`);
  });

  it.each([
    ["--port", "HAWSER_DATABASE_URL", "postgres://127.0.0.1:1/none"],
    ["--nats-port", "HAWSER_NATS_URL", "nats://127.0.0.1:1"],
  ])("takes no %s beside %s, which names a server to use instead", async (flag, variable, url) => {
    for (const port of ["0", "15433"]) {
      const { status, stdout, stderr } = await hawser(["dev", flag, port], { env: { [variable]: url } });
      expect({ status, stdout }).toEqual({ status: 64, stdout: "" });
      expect(stderr).toContain(`${variable} names one to use instead; remove ${flag} or unset ${variable}`);
    }
  });

  it("takes no number for both ports", async () => {
    const { status, stderr } = await hawser(["dev", "--port", "15433", "--nats-port", "15433"]);
    expect(status).toBe(64);
    expect(stderr).toContain(
      "--port and --nats-port are both 15433; set one of them to another port, or to 0 for a free one",
    );
  });

  it("says which flag to change where its port is taken", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const { status, stderr } = await hawser(["dev", "--port", "0", "--nats-port", `${port}`]);
    server.close();
    expect(status).toBe(73);
    expect(stderr).toContain(
      `the port ${port} of 127.0.0.1 is in use by another program; set --nats-port to another port, or to 0 for a free one`,
    );
  });

  it("prints exactly one line when all answer, and stops everything on SIGTERM with status 0", async () => {
    const program = dev(["--json"]);
    const urls = await announced(program);
    expect(urls).toEqual({
      databaseUrl: expect.stringMatching(/^postgresql:/),
      natsUrl: expect.stringMatching(/^nats:/),
      gatewayUrl: expect.stringMatching(/^postgres:\/\/hawser@127\.0\.0\.1:\d+\/postgres$/),
      directory: expect.stringContaining("hawser-dev-"),
      monitorAddress: null,
    });
    const migrations = await rowsOf(urls.databaseUrl, "SELECT id FROM hawser_data.migrations");
    expect(migrations.length).toBeGreaterThan(0);
    expect(await answers(urls.natsUrl)).toBe(true);
    const [server] = await rowsOf(urls.databaseUrl, "SELECT port FROM nats_get_server_info()");
    expect(server).toEqual({ port: Number(new URL(urls.natsUrl).port) });
    program.child.kill("SIGTERM");
    const { status, stdout, stderr } = await program.ended;
    expect(status).toBe(0);
    expect(stdout).toBe(`${JSON.stringify(urls)}\n`);
    expect(stderr).toContain("Starting Postgres and nats-server");
    expect(await anyAnswers(urls)).toBe(false);
  });

  describe("in a database that somebody else runs", () => {
    const production = '{"host":"nats.prod.internal","token":"t0ken-of-mine"}';
    const defined = async (url: string) =>
      (await rowsOf(url, "SELECT options FROM hawser_bridge_data.nats_server"))[0]!["options"];
    const stop = async (program: Program) => {
      program.child.kill("SIGTERM");
      const end = await program.ended;
      expect(end.status).toBe(0);
      return end;
    };

    it("leaves a definition of the NATS server alone, and says that it is used", async () => {
      await using database = await testDatabase();
      await rowsOf(database.url, `SELECT hawser.set_nats_server('${production}')`);
      const program = dev([], { env: { HAWSER_DATABASE_URL: database.url } });
      await program.firstLine;
      expect(await defined(database.url)).toEqual(JSON.parse(production));
      const { stdout, stderr } = await stop(program);
      const used = "The SQL functions use the NATS server nats.prod.internal of hawser.set_nats_server";
      expect(stdout).toContain(`${used}, not the nats-server above`);
      // With it the nats command would not meet the SQL functions.
      expect(stdout).not.toContain("NATS_URL");
      expect(stderr).toContain(`${used}, as the database defines it; the definition stays.`);
      expect(stdout + stderr).not.toContain("t0ken-of-mine");
      expect(await defined(database.url)).toEqual(JSON.parse(production));
    });

    it("replaces it with that of HAWSER_NATS_URL, and puts it back at its end", async () => {
      await using database = await testDatabase();
      await rowsOf(database.url, `SELECT hawser.set_nats_server('${production}')`);
      const program = dev(["--json"], { env: { HAWSER_DATABASE_URL: database.url, HAWSER_NATS_URL: testNatsUrl() } });
      await program.firstLine;
      const { hostname, port } = new URL(testNatsUrl());
      expect(await defined(database.url)).toEqual({ host: hostname, port });
      const { stderr } = await stop(program);
      expect(stderr).toContain("then the NATS server nats.prod.internal of hawser.set_nats_server again");
      expect(await defined(database.url)).toEqual(JSON.parse(production));
    });

    it("puts a foreign server back that it has replaced", async () => {
      await using database = await testDatabase();
      await rowsOf(
        database.url,
        "CREATE SERVER ours FOREIGN DATA WRAPPER litmus_pgnats_fdw OPTIONS (host 'nats.prod.internal')",
      );
      const program = dev(["--json"], { env: { HAWSER_DATABASE_URL: database.url, HAWSER_NATS_URL: testNatsUrl() } });
      await program.firstLine;
      expect(await defined(database.url)).toMatchObject({ host: new URL(testNatsUrl()).hostname });
      await stop(program);
      expect(await rowsOf(database.url, "SELECT options, server_name FROM hawser_bridge_data.nats_server")).toEqual([
        { options: { host: "nats.prod.internal" }, server_name: "ours" },
      ]);
    });

    it("removes what it has defined where nothing was, unless somebody has defined another one since", async () => {
      await using database = await testDatabase();
      for (const since of [null, { host: "nats.new.internal" }]) {
        const program = dev(["--json"], { env: { HAWSER_DATABASE_URL: database.url } });
        const { port } = new URL((await announced(program)).natsUrl);
        expect(await defined(database.url)).toEqual({ host: "127.0.0.1", port });
        if (since !== null) await rowsOf(database.url, `SELECT hawser.set_nats_server('${JSON.stringify(since)}')`);
        await stop(program);
        expect(await defined(database.url)).toEqual(since);
      }
    });
  });

  it("fails with the status of its error, having printed nothing, when it cannot start", async () => {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, "thesis.txt"), "");
    const { status, stdout, stderr } = await hawser(["dev", "--json", "--directory", directory]);
    expect({ status, stdout }).toEqual({ status: 69, stdout: "" });
    expect(stderr).toMatch(/is not empty.*\[dev_server_failed\]\n$/);
  });

  describe("gives a command", () => {
    const source = `
      const names = ["PGHOST", "PGHOSTADDR", "PGSERVICE", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD"];
      console.log(JSON.stringify(Object.fromEntries(names.map((name) => [name, process.env[name]]))))`;
    const ofShell = { PGHOST: "elsewhere", PGHOSTADDR: "192.0.2.1", PGSERVICE: "elsewhere" };
    const variablesFor = async (url: URL): Promise<unknown> => {
      const program = dev(["--", process.execPath, "-e", source], {
        env: { HAWSER_DATABASE_URL: url.href, HAWSER_NATS_URL: testNatsUrl(), ...ofShell },
      });
      const { status, stdout } = await program.ended;
      expect(status).toBe(0);
      return JSON.parse(stdout);
    };

    it("libpq's variables of a Postgres that somebody else runs", async () => {
      await using database = await testDatabase();
      const url = new URL(database.url);
      url.password ||= "open sesame";
      expect(await variablesFor(url)).toEqual({
        ...{ PGHOST: url.hostname, PGPORT: url.port, PGDATABASE: url.pathname.slice(1) },
        ...{ PGUSER: url.username, PGPASSWORD: decodeURIComponent(url.password) },
      });
    });

    it("none of them if the URL has parameters, without which psql could send the password elsewhere", async () => {
      await using database = await testDatabase();
      const url = new URL(database.url);
      url.password ||= "open sesame";
      url.search = "?sslmode=disable";
      const variables = await variablesFor(url);
      expect(variables).toMatchObject(ofShell);
      expect(variables).not.toHaveProperty("PGPASSWORD");
    });
  });

  it("shows no password of a Postgres that somebody else runs, and says nothing of a variable that is set", async () => {
    await using database = await testDatabase();
    const url = new URL(database.url);
    // One that asks for none takes any.
    url.password ||= "open-sesame";
    const program = dev([], { env: { HAWSER_DATABASE_URL: url.href, HAWSER_NATS_URL: testNatsUrl() } });
    await program.firstLine;
    program.child.kill("SIGINT");
    const { status, stdout, stderr } = await program.ended;
    expect(status).toBe(0);
    expect(stdout).toMatch(/^Postgres \d+\.\d+ {2}postgresql:\/\/\*\*\*@127\.0\.0\.1:\d+\/hawser_test_/);
    expect(stdout).not.toContain("export");
    expect(stdout + stderr).not.toContain(url.password);
  });
});
