/**
 * Faults of a system under load. Each is seen on the overview of the operator's page with its remedy, and has one alert; when it has
 * been mended, both are gone. The test prints how long that took.
 *
 * The system is real: Postgres, NATS, two processes of `hawser serve` with TLS, `hawser page`, a process that enqueues and
 * publishes, workers, and a Prometheus with the alerts of the chart, whose waits and thresholds are shorter here.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { CertificateAuthority } from "../support/certificate-authority.js";
import { eventually } from "../support/eventually.js";
import { toolOrSkip } from "../support/kept.js";
import { startNatsServer } from "../support/nats-server.js";
import { rowsOf } from "../support/on-server.js";
import { ownPort } from "../support/own-port.js";
import { type Program, projectDirectory, startProgram } from "../support/program.js";
import { startPrometheus } from "../support/prometheus.js";
import { findPrometheus } from "../support/promtool.js";
import { temporaryDirectory } from "../support/temporary.js";
import { ownPostgres } from "./support/own-postgres.js";
import { ServeProcess } from "./support/serve-process.js";
import { prepareForSql } from "./support/sql-database.js";

const program = await toolOrSkip(findPrometheus(), "The faults that are seen by a Prometheus");

/** Waits of alerts here, in seconds, by those in the file: an order of theirs that only takes less time. */
const waits: Readonly<Record<string, number>> = { "30s": 10, "1m": 20, "2m": 40, "3m": 50, "5m": 60, "10m": 70 };
const rules = readFileSync(join(projectDirectory, "deploy/chart/alerts.yaml"), "utf8")
  .replace(/for: (\w+)$/gm, (_, wait: string) => `for: ${waits[wait]!}s`)
  .replace(/\[1m\]/g, "[20s]")
  .replace(/\[5m\]/g, "[30s]")
  .replace(/\[10m\]/g, "[60s]")
  .replace(/ > 300$/gm, " > 20");

/** Alerts are watched for so many looks, a second apart, after the last one has fired. */
const quietLooks = 15;
const limitMs = 400_000;

interface Fault {
  readonly provoke: () => Promise<unknown>;
  readonly mend: () => Promise<unknown>;
  /** What the overview says of it, and in the same row its remedy. */
  readonly says: RegExp;
  readonly remedy: RegExp;
  readonly alert: string;
  /** Examinations that begin after the fault until one has it, at most. Default 2: the first may have begun too early. */
  readonly examinations?: number;
}

/** Text of the overview, its rows on lines of their own. */
interface Look {
  readonly at: number;
  readonly status: number;
  readonly text: string;
}

it.skipIf(program === undefined)(
  "each fault is seen on the overview with its remedy, and has one alert",
  async () => {
    await using postgres = await ownPostgres();
    await using nats = await startNatsServer({ jetStream: true });
    const databaseUrl = postgres.url;
    await prepareForSql(databaseUrl, nats.url);
    const query = (sql: string) => rowsOf(databaseUrl, sql);
    const directory = temporaryDirectory();
    const authority = new CertificateAuthority();
    const [cert, key] = [join(directory, "tls.crt"), join(directory, "tls.key")];
    const certify = async (untilDays: number) => {
      const issued = authority.issue(["127.0.0.1"], { untilDays });
      writeFileSync(key, issued.key);
      writeFileSync(cert, issued.cert);
    };
    await certify(365);
    const monitorPorts = [await ownPort(), await ownPort()];
    const [first, second] = await Promise.all(
      monitorPorts.map((port) =>
        ServeProcess.start(databaseUrl, ["--monitor", `127.0.0.1:${port}`, "--tls-cert", cert, "--tls-key", key]),
      ),
    );
    await query(`CREATE FUNCTION take(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT'`);
    const createStream = "SELECT nats_create_stream('events', ARRAY['nats.event'])";
    await query(createStream);
    await query("SELECT nats_subscribe('nats.news', 'take')");
    await query("SELECT nats_subscribe_stream('events', 'take', 'events')");

    const programs = new Map<string, Program>();
    await using _programs = {
      async [Symbol.asyncDispose]() {
        for (const { child } of programs.values()) child.kill("SIGKILL");
        await Promise.all([...programs.values()].map(({ ended }) => ended));
      },
    };
    const ports = new Map<string, number>();
    const start = async (kind: "enqueue" | "handle" | "join", ...topics: string[]) => {
      const [name] = topics as [string];
      if (!ports.has(name)) ports.set(name, await ownPort());
      const env = { HAWSER_DATABASE_URL: databaseUrl, MONITOR: `${ports.get(name)!}` };
      const started = startProgram("test/faults/programs/load.ts", [kind, ...topics], { env });
      programs.set(`${kind} ${name}`, started);
      await started.firstLine;
    };
    const end = async (name: string, signal: NodeJS.Signals) => {
      const { child, ended } = programs.get(name)!;
      child.kill(signal);
      await ended;
    };
    const say = (name: string, line: string) => programs.get(name)!.child.stdin!.write(`${line}\n`);
    const ten = Array.from({ length: 10 }, (_, n) => `ten${n}`);
    await start("handle", "mails");
    await start("handle", "slow");
    await start("handle", ...ten);
    await start("join", "bills");
    await start("enqueue", "nats.news", "nats.event", "mails", "slow", "bills", ...ten);

    const pageProgram = startProgram("src/operating/cli/main.ts", ["page", "--listen", "127.0.0.1:0", "--json"], {
      env: { HAWSER_DATABASE_URL: databaseUrl },
    });
    programs.set("page", pageProgram);
    const { url } = JSON.parse(await pageProgram.firstLine) as { readonly url: string };
    const look = async (): Promise<Look> => {
      const response = await fetch(url);
      const text = (await response.text())
        .replaceAll(/<\/(tr|p|h2|li)>/g, "\n")
        .replaceAll(/<[^>]+>/g, " ")
        .replaceAll("&quot;", '"')
        .replaceAll("&#39;", "'")
        .replaceAll(/[ \t]+/g, " ");
      return { at: performance.now(), status: response.status, text };
    };
    await using prometheus = await startPrometheus(
      {
        hawser: monitorPorts.map((port) => `127.0.0.1:${port}`),
        "hawser-peers": ["mails", "slow", "ten0", "bills"].map((name) => `127.0.0.1:${ports.get(name)!}`),
      },
      rules,
    );
    await eventually("the system runs under load", async () => {
      const samples = await prometheus.query(
        "count(up == 1) == 6 and on () (hawser_stream_reading == 1) and on () hawser_bridge_leading == 1",
      );
      return samples.length > 0 || delay(500, false);
    });
    const isWell = ({ status, text }: Look) => status === 200 && /\bNo errors\b/.test(text);
    const oneByOne = async (what: string, done: () => Promise<boolean>) =>
      eventually(what, async () => (await done()) || delay(1_000, false), limitMs);
    const alerts = (state: "pending" | "firing") => prometheus.query(`ALERTS{alertstate="${state}"}`);
    const allIsWell = async () =>
      isWell(await look()) && (await alerts("firing")).length === 0 && (await alerts("pending")).length === 0;
    await oneByOne("all is well", allIsWell);

    const faults: Readonly<Record<string, Fault>> = {
      "a typo in a topic": {
        provoke: () => start("enqueue", "mials"),
        mend: async () => {
          await end("enqueue mials", "SIGKILL");
          await start("handle", "mials");
        },
        says: /topic "mials".*no listener of it is known/,
        remedy: /Start a peer that handles this topic\. If its name is mistyped, correct it where messages are sent/,
        alert: "HawserTopicNotServed",
      },
      "a group without members": {
        provoke: () => end("join bills", "SIGTERM"),
        mend: () => start("join", "bills"),
        says: /topic "bills".*no listener of it runs/,
        remedy: /Start one: hawser topics, hawser pending/,
        alert: "HawserBacklogNotRead",
      },
      "each hawser serve killed": {
        provoke: () => Promise.all([first!.crash(), second!.crash()]),
        mend: () => Promise.all([first!.start(), second!.start()]),
        says: /gateway .*the gateway cannot be reached/,
        remedy: /hawser serve/,
        alert: "HawserNothingAnswers",
      },
      "NATS stopped": {
        provoke: () => nats.kill(),
        mend: () => nats.restart(),
        says: /nats .*NATS/,
        remedy: /NATS/,
        alert: "HawserNatsAway",
      },
      "a stream deleted": {
        provoke: () => query("SELECT nats_delete_stream('events')"),
        mend: async () => {
          await query(createStream);
          await query("SELECT nats_seek_stream('events', 'all')");
        },
        says: /subscription "events" to the stream events has stopped/,
        remedy: /Create the stream again/,
        alert: "HawserStreamNotRead",
      },
      "a slow handler": {
        provoke: async () => say("handle slow", "20000"),
        mend: async () => say("handle slow", "1"),
        says: /topic "slow".*all places of its worker are taken/,
        remedy: /Make the handler faster, or start more workers/,
        alert: "HawserBacklogBehind",
        // Its worker says so with a beat.
        examinations: 3,
      },
      "Postgres stopped, and started again": {
        provoke: () => postgres.kill("SIGINT"),
        mend: () => postgres.start(),
        says: /nothing listens at .*where Postgres should be/,
        remedy: /Start Postgres/,
        alert: "HawserPostgresAway",
      },
      "a certificate about to end": {
        provoke: () => certify(3),
        mend: () => certify(365),
        says: /the TLS certificate of `hawser serve` ends in/,
        remedy: /Renew the file of --tls-cert/,
        alert: "HawserCertificateEnds",
      },
      "the worker of ten topics killed": {
        provoke: () => end("handle ten0", "SIGKILL"),
        mend: () => start("handle", ...ten),
        says: /\d+ messages wait for 10 topics, and no listeners of them run/,
        remedy: /hawser pending lists them/,
        alert: "HawserBacklogNotRead",
        // Its lease ends after 15 s.
        examinations: 3,
      },
    };
    const table = ["fault | seen | finding and remedy | alerts, each set of labels | mended"];
    const problems: string[] = [];
    const only = process.env["HAWSER_FAULT"];
    for (const [name, { provoke, mend, says, remedy, alert, examinations = 2 }] of Object.entries(faults)) {
      if (only !== undefined && !name.includes(only)) continue;
      const fired = new Set<string>();
      const note = async () => {
        const firing = await alerts("firing");
        for (const { metric } of firing) {
          const { __name__: _, alertstate: __, alertname, severity: ___, ...labels } = metric;
          fired.add(`${alertname!}${JSON.stringify(labels)}`);
        }
        return firing.length;
      };
      await provoke();
      const since = performance.now();
      const seconds = (at = performance.now()) => ((at - since) / 1000).toFixed(1);
      // Times at which examinations have begun after the fault, as the age of the verdict says.
      const examinedAt: number[] = [];
      let found: Look | undefined;
      let shown: string | undefined;
      await oneByOne(`${name} is seen on the overview`, async () => {
        const one = await look();
        const age = /Examined (\d+) (s|ms|min)/.exec(one.text);
        // The age is rounded down.
        const begunAt =
          age === null ? Number.NEGATIVE_INFINITY : one.at - Number(age[1]) * (age[2] === "s" ? 1_000 : 1);
        if (begunAt - 1_000 > since && begunAt - (examinedAt.at(-1) ?? 0) > 2_000) examinedAt.push(begunAt);
        shown = one.text.split("\n").find((line) => says.test(line));
        if (shown !== undefined) found = one;
        await note();
        return shown !== undefined;
      });
      if (!remedy.test(shown!)) problems.push(`${name}: no remedy in: ${shown}`);
      if (examinedAt.length > examinations) problems.push(`${name}: seen by examination ${examinedAt.length}`);
      let quiet = 0;
      let alertedAt: number | undefined;
      await oneByOne(`${name} has an alert`, async () => {
        const firing = await note();
        const pending = await alerts("pending");
        if (firing > 0) alertedAt ??= performance.now();
        quiet = firing > 0 && pending.length === 0 ? quiet + 1 : 0;
        return quiet > quietLooks;
      });
      const mendedAt = performance.now();
      await mend();
      let goneAt: number | undefined;
      await oneByOne(`${name} is gone`, async () => {
        const one = await look();
        if (isWell(one) && !says.test(one.text)) goneAt ??= performance.now();
        await note();
        return goneAt !== undefined && (await allIsWell());
      });
      const resolvedAt = performance.now();
      const names = [...fired];
      if (names.length !== 1 || !names[0]!.startsWith(`${alert}{`))
        problems.push(`${name}: alerts ${names.join(", ")}`);
      table.push(
        `${name} | seen after ${seconds(found!.at)} s, examination ${examinedAt.length} | ${shown!.trim()} | ${names.join(", ")} after ${seconds(alertedAt)} s | mended: page after ${((goneAt! - mendedAt) / 1000).toFixed(1)} s, alerts after ${((resolvedAt - mendedAt) / 1000).toFixed(1)} s`,
      );
      console.log(table.at(-1));
    }
    console.log(table.join("\n"));
    expect(problems).toEqual([]);
  },
  3_000_000,
);
