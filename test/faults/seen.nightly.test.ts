/**
 * Eight faults of a running system. Each is seen by a metric that Prometheus has, by an alert, by `hawser doctor`, and on the page
 * that an operator has open. The test prints how long each took.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { it } from "vitest";
import { Peer, Reject } from "../../src/jobs-and-peers/peer/index.js";
import { doctor } from "../../src/operating/doctor/index.js";
import { page } from "../../src/operating/page/index.js";
import { eventually } from "../support/eventually.js";
import { toolOrSkip } from "../support/kept.js";
import { startNatsServer } from "../support/nats-server.js";
import { rowsOf } from "../support/on-server.js";
import { projectDirectory } from "../support/program.js";
import { startPrometheus } from "../support/prometheus.js";
import { findPrometheus } from "../support/promtool.js";
import { ServeProcess } from "./support/serve-process.js";
import { sqlDatabase } from "./support/sql-database.js";

const program = await toolOrSkip(findPrometheus(), "The faults that are seen by a Prometheus");
// The waits are those of promtool's tests; here they only take time.
const rules = readFileSync(join(projectDirectory, "deploy/chart/alerts.yaml"), "utf8").replace(
  /for: \d+m$/gm,
  "for: 15s",
);

interface Fault {
  readonly provoke: () => Promise<unknown>;
  /** Query that has a result as long as the fault is there. */
  readonly metric: string;
  /** Selector of the alert. */
  readonly alert: string;
  /** What doctor, and the page's verdict, say of it. */
  readonly says: RegExp;
}

it.skipIf(program === undefined)(
  "each of eight faults is seen by metric, alert, doctor and page",
  async () => {
    await using nats = await startNatsServer({ jetStream: true });
    await using database = await sqlDatabase(nats.url);
    const { url: databaseUrl } = database;
    const query = (sql: string) => rowsOf(databaseUrl, sql);
    const flags = ["--monitor", "127.0.0.1:0"];
    await using first = await ServeProcess.start(databaseUrl, flags);
    await using second = await ServeProcess.start(databaseUrl, flags);
    await query(`CREATE FUNCTION refuse(payload bytea) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
    CREATE FUNCTION take(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT'`);
    await query("SELECT nats_create_stream('stopped', ARRAY['stopped'])");
    await query("SELECT nats_subscribe('refused', 'refuse'), nats_subscribe_stream('stopped', 'take', 'stopped')");
    const handled = new Set<string>();
    const peer = async (name: string, topic: string, group?: string, handler = () => void handled.add(topic)) => {
      const made = new Peer({ name, topic, databaseUrl, defaults: group === undefined ? {} : { group } });
      await made.handle(topic, handler);
      await made.start();
      return made;
    };
    await using _refusing = await peer("refusing-1", "rejected", undefined, () => {
      throw new Reject("no");
    });
    await using away = await peer("away-1", "away");
    await using member = await peer("member-1", "shared", "workers");
    await using ops = page({ databaseUrl });
    const verdict = async () => (await ops(new Request("http://127.0.0.1/"))).text();
    await using prometheus = await startPrometheus(
      { hawser: [first, second].map(({ monitorAddress }) => monitorAddress) },
      rules,
    );
    await eventually("the subscriptions are read", async () => {
      const reading = await prometheus.query("hawser_stream_reading == 1 and on () hawser_bridge_leading == 1");
      return reading.length > 0;
    });
    // A listener that stopped before it had any message is not known.
    await query("SELECT hawser.enqueue('away', 'met'), hawser.enqueue('shared', 'met')");
    await eventually("they are met", () => handled.size === 2);
    await away.stop();
    await member.stop();

    const faults: Readonly<Record<string, Fault>> = {
      "a listener that has stopped": {
        provoke: () => query("SELECT hawser.enqueue('away', 'x')"),
        metric: `hawser_backlog_age_seconds{topic="away", state="stopped"}`,
        alert: `alertname="HawserBacklogNotRead", topic="away"`,
        says: /away-1/,
      },
      "a group without a member": {
        provoke: () => query("SELECT hawser.enqueue('shared', 'x')"),
        metric: `hawser_backlog_age_seconds{topic="shared"}`,
        alert: `alertname="HawserBacklogNotRead", topic="shared"`,
        says: /workers|member-1/,
      },
      "a mistyped topic": {
        provoke: () => query("SELECT hawser.enqueue('mistyped', 'x')"),
        metric: `hawser_backlog_age_seconds{topic="mistyped", state="unserved"}`,
        alert: `alertname="HawserTopicNotServed"`,
        says: /mistyped/,
      },
      "a handler that gives up 1,200 messages": {
        provoke: () => query("SELECT hawser.enqueue('rejected', n::text) FROM generate_series(1, 1200) AS n"),
        metric: `hawser_recent_dead_letters{origin="peer"} > 0`,
        alert: `alertname="HawserPeerDeadLetters"`,
        says: /messages of peers were dead-lettered/,
      },
      "a function that fails": {
        provoke: () => query("SELECT nats_publish_text('refused', 'x')"),
        metric: "hawser_bridge_messages_dead_lettered_total > 0",
        alert: `alertname="HawserDeadLetters"`,
        says: /message of subscriptions was dead-lettered/,
      },
      "a stream that is deleted": {
        provoke: () => query("SELECT nats_delete_stream('stopped')"),
        metric: "hawser_stream_reading == 0",
        alert: `alertname="HawserStreamNotRead"`,
        says: /stream stopped has stopped/,
      },
      "NATS that is down": {
        provoke: () => nats.kill(),
        metric: "hawser_nats_up == 0",
        alert: `alertname="HawserNatsAway"`,
        says: /NATS/,
      },
      "both processes of hawser serve killed": {
        provoke: async () => {
          await nats.restart();
          await Promise.all([first.crash(), second.crash()]);
        },
        metric: "up == 0",
        alert: `alertname="HawserNothingAnswers"`,
        says: /the gateway cannot be reached/,
      },
    };
    const seconds = (since: number) => `${Math.round((performance.now() - since) / 1000)} s`;
    for (const [name, { provoke, metric, alert, says }] of Object.entries(faults)) {
      const since = performance.now();
      await provoke();
      const [byMetric, byAlert, byDoctor, onPage] = await Promise.all(
        Object.entries({
          metric: async () => (await prometheus.query(metric)).length > 0,
          alert: async () => (await prometheus.query(`ALERTS{alertstate="firing", ${alert}}`)).length > 0,
          doctor: async () =>
            (await doctor({ databaseUrl, secretsDirectories: [] })).findings.some(({ what }) => says.test(what)),
          page: async () => says.test(await verdict()),
        }).map(async ([where, isSeen]) => {
          // An examination takes a second of a processor.
          const check = async () => (await isSeen()) || delay(500, false);
          await eventually(`${name} is seen by ${where}`, check);
          return seconds(since);
        }),
      );
      console.log(`${name}: metric ${byMetric}, alert ${byAlert}, doctor ${byDoctor}, page ${onPage}`);
    }
  },
  600_000,
);
