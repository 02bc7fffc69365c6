/** One cause has one alert: a system that is well, and the same system with one fault each, by promtool. */
import { execFile } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { dump } from "js-yaml";
import { describe, expect, it } from "vitest";
import { toolOrSkip } from "../../support/kept.js";
import { projectDirectory } from "../../support/program.js";
import { findPromtool } from "../../support/promtool.js";

const promtool = await toolOrSkip(findPromtool(), "One alert for each cause");

/** Values of series by their names, each for 15 seconds. */
type Series = Readonly<Record<string, string>>;

const serve = (name: string, labels = "", instance = "a:9464") =>
  `hawser_${name}{job="hawser", database="app", instance="${instance}"${labels && `, ${labels}`}}`;
const peer = (name: string, labels = "") =>
  `hawser_peer_${name}{job="hawser-peers", peer="mail-1", instance="m:9464"${labels && `, ${labels}`}}`;
const up = (job: string, instance: string) => `up{job="${job}", instance="${instance}"}`;
const taking = 'subject="orders.>", function="public.take(bytea)"';
const billing = 'subscription="billing", stream="ORDERS", function="public.take(bytea)"';
const backlog = (topic: string, state: string) =>
  `topic="${topic}", group="", listener="${state === "stopped" ? "mail-1" : ""}", state="${state}"`;
const age = (topic: string, state: string) => serve("backlog_age_seconds", backlog(topic, state));
const waiting = (topic: string, state: string) => serve("backlog_messages", backlog(topic, state));
const peerAge = (topic: string, state: string) => peer("database_backlog_age_seconds", backlog(topic, state));

/** Two processes of `hawser serve`, of which the first one leads, and a worker, all of them busy. */
const well: Series = {
  [up("hawser", "a:9464")]: "1x240",
  [up("hawser", "b:9464")]: "1x240",
  [up("hawser-peers", "m:9464")]: "1x240",
  [serve("bridge_leading")]: "1x240",
  [serve("bridge_leading", "", "b:9464")]: "0x240",
  [serve("postgres_up")]: "1x240",
  [serve("postgres_up", "", "b:9464")]: "1x240",
  [serve("nats_up", 'client="subscriptions"')]: "1x240",
  [serve("nats_up", 'client="outbox"')]: "1x240",
  [serve("nats_up", 'client="subscriptions"', "b:9464")]: "1x240",
  [serve("bridge_oldest_message_age_seconds", taking)]: "1x240",
  [serve("bridge_saved_bytes", taking)]: "0x240",
  [serve("bridge_cuts_total", taking)]: "0x240",
  [serve("bridge_messages_discarded_total", 'reason="buffer_full"')]: "0x240",
  [serve("bridge_messages_dead_lettered_total", taking)]: "0x240",
  [serve("outbox_enqueued_age_seconds")]: "1x240",
  [serve("outbox_enqueued_age_seconds", "", "b:9464")]: "1x240",
  [serve("outbox_messages_refused_total")]: "0x240",
  [serve("outbox_messages_dropped_total")]: "0x240",
  [serve("recent_dead_letters", 'origin="queue"')]: "0x240",
  [serve("stream_reading", billing)]: "1x240",
  [serve("stream_lag_messages", billing)]: "10x240",
  [serve("stream_missing_messages", billing)]: "0x240",
  [serve("stream_messages_dead_lettered_total", billing)]: "0x240",
  [serve("gateway_calls_total", 'method="Publish", outcome="ok"')]: "0+150x240",
  [serve("gateway_calls_total", 'method="Publish", outcome="error"')]: "0x240",
  [serve("gateway_certificate_ends_timestamp_seconds")]: "9999999x240",
  [serve("responder_requests_total", 'subject="prices", function="public.answer(bytea)", outcome="ok"')]: "0+15x240",
  [serve("responder_requests_total", 'subject="prices", function="public.answer(bytea)", outcome="failed"')]: "0x240",
  [serve("responder_requests_total", 'subject="prices", function="public.answer(bytea)", outcome="busy"')]: "0x240",
  [age("mails", "running")]: "1x240",
  [waiting("mails", "running")]: "20x240",
  [peer("info", 'version="1"')]: "1x240",
  [peer("process_start_timestamp_seconds")]: "1x240",
  [peer("ready")]: "1x240",
  [peer("reconnects_total")]: "0x240",
  [peer("certificate_ends_timestamp_seconds")]: "9999999x240",
  [peer("attempts_total", 'topic="mails"')]: "0+150x240",
  [peer("messages_handled_total", 'topic="mails", outcome="done"')]: "0+150x240",
  [peer("messages_handled_total", 'topic="mails", outcome="retried"')]: "0x240",
  [peer("messages_handled_total", 'topic="mails", outcome="deferred"')]: "0+15x240",
  [peer("messages_handled_total", 'topic="mails", outcome="dead_letter"')]: "0x240",
  [peerAge("mails", "running")]: "1x240",
};

/** Faults from the 20th minute on: the series that differ, and the only alert. A series with null is not there. */
const faults: Readonly<Record<string, readonly [alert: string, differs: Series]>> = {
  "a topic is mistyped": [
    "HawserTopicNotServed",
    { [age("mials", "unserved")]: "_x79 0+15x160", [peerAge("mials", "unserved")]: "_x79 0+15x160" },
  ],
  "a group is without members": [
    "HawserBacklogNotRead",
    {
      [age("mails", "running")]: "1x79 stale",
      [age("mails", "stopped")]: "_x79 0+15x160",
      [peerAge("mails", "stopped")]: "_x79 0+15x160",
    },
  ],
  "the only worker was killed": [
    "HawserBacklogNotRead",
    {
      ...Object.fromEntries(
        Object.keys(well)
          .filter((name) => name.startsWith("hawser_peer_"))
          .map((name) => [name, `${well[name]!.replace(/x240$/, "x79")} stale`]),
      ),
      [up("hawser-peers", "m:9464")]: "1x79 0x160",
      [age("mails", "running")]: "1x79 stale",
      [age("mails", "stopped")]: "_x79 0+15x160",
    },
  ],
  "the only worker of ten topics was killed": [
    "HawserBacklogNotRead",
    {
      ...Object.fromEntries(
        Array.from({ length: 10 }, (_, n) => [
          [age(`t${n}`, "stopped"), "_x79 0+15x160"],
          [peerAge(`t${n}`, "stopped"), "_x79 0+15x160"],
        ]).flat(),
      ),
    },
  ],
  "a worker was killed for which nothing waits": ["HawserPeerGone", { [up("hawser-peers", "m:9464")]: "1x79 0x160" }],
  "one hawser serve was killed": [
    "HawserDown",
    {
      [up("hawser", "a:9464")]: "1x79 0x160",
      ...Object.fromEntries(
        Object.keys(well)
          .filter((name) => /^hawser_(?!peer_).*instance="a:9464"/.test(name))
          .map((name) => [name, `${well[name]!.replace(/x240$/, "x79")} stale`]),
      ),
      [serve("bridge_leading", "", "b:9464")]: "0x80 1x160",
    },
  ],
  "each hawser serve was killed": [
    "HawserNothingAnswers",
    {
      [up("hawser", "a:9464")]: "1x79 0x160",
      [up("hawser", "b:9464")]: "1x79 0x160",
      ...Object.fromEntries(
        Object.keys(well)
          .filter((name) => /^hawser_(?!peer_)/.test(name))
          .map((name) => [name, `${well[name]!.replace(/x240$/, "x79")} stale`]),
      ),
    },
  ],
  "nobody leads": [
    "HawserNobodyLeads",
    {
      [serve("bridge_leading")]: "1x79 0x160",
      [serve("outbox_enqueued_age_seconds")]: "1x79 0+15x160",
      [serve("stream_reading", billing)]: "1x79 stale",
    },
  ],
  "NATS is stopped": [
    "HawserNatsAway",
    {
      [serve("nats_up", 'client="subscriptions"')]: "1x79 0x160",
      [serve("nats_up", 'client="outbox"')]: "1x79 0x160",
      [serve("nats_up", 'client="subscriptions"', "b:9464")]: "1x79 0x160",
      [serve("bridge_leading")]: "1x79 0x160",
      [serve("bridge_cuts_total", taking)]: "0x79 1x160",
      [serve("outbox_enqueued_age_seconds")]: "1x79 0+15x160",
      [serve("stream_reading", billing)]: "1x79 0x160",
      [serve("gateway_calls_total", 'method="Publish", outcome="error"')]: "0x79 0+150x160",
    },
  ],
  "NATS was stopped for three minutes": [
    "HawserNatsAway",
    {
      [serve("nats_up", 'client="subscriptions"')]: "1x79 0x12 1x160",
      [serve("bridge_leading")]: "1x79 0x12 1x160",
      [serve("bridge_cuts_total", taking)]: "0x79 1x170",
    },
  ],
  "the connection to NATS was cut": ["HawserCut", { [serve("bridge_cuts_total", taking)]: "0x79 1x160" }],
  "a stream was deleted": [
    "HawserStreamNotRead",
    {
      [serve("stream_reading", billing)]: "1x79 0x160",
      [serve("stream_reading", billing.replace("billing", "audit"))]: "1x79 0x160",
      [serve("stream_lag_messages", billing)]: "10x79 5000x160",
    },
  ],
  "a stream has deleted what was not read": [
    "HawserStreamMissing",
    {
      [serve("stream_missing_messages", billing)]: "0x79 0+5x160",
      [serve("stream_lag_messages", billing)]: "10x79 5000x160",
    },
  ],
  "a handler is slow": [
    "HawserBacklogBehind",
    {
      [age("mails", "running")]: "1x79 0+15x160",
      [peerAge("mails", "running")]: "1x79 0+15x160",
      [waiting("mails", "running")]: "20x79 20+50x160",
    },
  ],
  "Postgres is away": [
    "HawserPostgresAway",
    {
      [serve("postgres_up")]: "1x79 0x160",
      [serve("postgres_up", "", "b:9464")]: "1x79 0x160",
      [serve("bridge_leading")]: "1x79 0x160",
      [serve("bridge_oldest_message_age_seconds", taking)]: "1x79 0+15x160",
      [serve("stream_reading", billing)]: "1x79 0x160",
      [peer("ready")]: "1x79 0x160",
    },
  ],
  "a certificate is about to end": [
    "HawserCertificateEnds",
    {
      [serve("gateway_certificate_ends_timestamp_seconds")]: "9999999x79 1000000x160",
      [serve("gateway_certificate_ends_timestamp_seconds", "", "b:9464")]: "9999999x79 1000000x160",
    },
  ],
  "the certificate of a peer is about to end": [
    "HawserPeerCertificateEnds",
    { [peer("certificate_ends_timestamp_seconds")]: "9999999x79 1000000x160" },
  ],
  "no process runs schedules": [
    "HawserScheduleStuck",
    {
      [serve("schedule_stuck", 'schedule="nightly", role="shop", state="late"')]: "_x79 1x160",
      [peer("database_schedule_stuck", 'schedule="nightly", role="shop", state="late"')]: "_x79 1x160",
    },
  ],
  "a process of workers ends again and again": [
    "HawserPeerRestarts",
    { [peer("process_start_timestamp_seconds")]: "1x79 400x13 600x14 800x20 1000x80" },
  ],
  "a handler makes dead letters": [
    "HawserPeerHandlerDeadLetters",
    {
      [peer("messages_handled_total", 'topic="mails", outcome="retried"')]: "0x79 0+60x160",
      [peer("messages_handled_total", 'topic="mails", outcome="dead_letter"')]: "0x79 0+15x160",
      [peer("messages_handled_total", 'topic="mails", outcome="dead_letter"').replaceAll("m:9464", "n:9464")]:
        "0x79 0+15x160",
      [serve("recent_dead_letters", 'origin="queue"')]: "0x79 0+15x160",
    },
  ],
  "a handler fails now and then": [
    "HawserPeerHandlersFail",
    { [peer("messages_handled_total", 'topic="mails", outcome="retried"')]: "0x79 0+60x160" },
  ],
  "the limits of a topic are reached": [
    "HawserBacklogLimited",
    {
      [age("mails", "running")]: "1x79 stale",
      [age("mails", "limited")]: "_x79 0+15x160",
      [waiting("mails", "limited")]: "_x79 0+50x160",
    },
  ],
  "a destination of the outbox does not answer": [
    "HawserOutboxBehind",
    { [serve("outbox_enqueued_age_seconds")]: "1x79 0+15x160" },
  ],
  "a subscribed function is slow": [
    "HawserBehind",
    {
      [serve("bridge_oldest_message_age_seconds", taking)]: "1x79 0+15x160",
      [serve("bridge_saved_bytes", taking)]: "0x79 1000000x160",
    },
  ],
  "a subscribed function is slow until messages are lost": [
    "HawserDiscarded",
    {
      [serve("bridge_oldest_message_age_seconds", taking)]: "1x79 900x160",
      [serve("bridge_saved_bytes", taking)]: "0x79 1073741824x160",
      [serve("bridge_messages_discarded_total", 'reason="buffer_full"')]: "0x79 0+5x160",
    },
  ],
};

/** Alerts that fire at any time from the 20th to the 40th minute, once for each set of labels, by promtool. */
async function fired(series: Series): Promise<string[]> {
  const directory = mkdtempSync(join(tmpdir(), "hawser-alerts-"));
  const file = join(directory, "test.yaml");
  const test = {
    rule_files: [join(projectDirectory, "deploy/chart/alerts.yaml")],
    evaluation_interval: "15s",
    tests: [
      {
        interval: "15s",
        input_series: Object.entries(series).map(([name, values]) => ({ series: name, values })),
        promql_expr_test: [
          {
            expr: 'count without (alertstate) (last_over_time(ALERTS{alertstate="firing"}[40m]))',
            eval_time: "40m",
            // Of which promtool then tells what it has found.
            exp_samples: [{ labels: '{alertname="none"}', value: 0 }],
          },
        ],
      },
    ],
  };
  writeFileSync(file, dump(test));
  const { stdout, stderr } = await promisify(execFile)(promtool!, ["test", "rules", file]).catch(
    (error: { stdout: string; stderr: string }) => error,
  );
  const [, got] = /got:([\s\S]*)$/.exec(`${stdout}${stderr}`) ?? [];
  if (got === undefined) throw new Error(`promtool: ${stdout}${stderr}`);
  return [...got.matchAll(/alertname="(\w+)"/g)].map(([, name]) => name!).sort();
}

describe.skipIf(promtool === undefined)("by promtool,", () => {
  it("nothing fires while all is well", async () => {
    expect(await fired(well)).toEqual([]);
  });

  it.each(Object.entries(faults))("one alert fires if %s", async (_fault, [alert, differs]) => {
    expect(await fired({ ...well, ...differs })).toEqual([alert]);
  });
});
