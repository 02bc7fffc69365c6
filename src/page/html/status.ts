/** Sections about the state of an installation: verdict, leader, backlog, peers, outbox, streams, schedules. */
import { html } from "hono/html";
import { outboxConstants } from "../../../generated/ts/settings/outbox.js";
import { withoutPasswords } from "../../errors/index.js";
import type {
  LeaderOverview,
  listStreamSubscriptions,
  OutboxOverview,
  PeerOverview,
  PendingOverview,
  ScheduledMessage,
  ScheduleOverview,
  TopicOverview,
} from "../../store/index.js";
import { certificateSeverity, type Reading, type ShownVerdict } from "../data/index.js";
import { type ListPlace, section, table, tableSection } from "./table.js";
import { type Html, plural, short, time } from "./text.js";

type StreamRow = Awaited<ReturnType<typeof listStreamSubscriptions>>[number];

/** Section with the verdict of `hawser doctor`, its age beside the headline. */
export function verdictSection({ report, ageMs, isOld, isExamining, problem }: ShownVerdict, now: number): Html {
  const examined = html`Examined ${time(new Date(now - ageMs), now)}${isExamining ? ", and now again" : ""}.`;
  const failure =
    problem === undefined
      ? ""
      : html`<p class="error">The last examination failed: ${short(withoutPasswords(problem))}</p>`;
  const body =
    report === undefined
      ? problem === undefined &&
        html`<p role="status">The installation is being examined. Reload the page in some seconds.</p>`
      : html`${headlineOf(report, isOld)} ${examined}</p>\n${findingsOf(report, isOld)}`;
  return html`<section id="verdict" aria-labelledby="verdict-title">
<h2 id="verdict-title">Verdict</h2>
${failure}${body}
</section>`;
}

type Report = NonNullable<ShownVerdict["report"]>;

/** Begin of the paragraph with the headline. An old verdict is none of the present. */
function headlineOf({ findings, checks }: Report, isOld: boolean): Html {
  const done = `${plural(checks.filter(({ outcome }) => outcome !== "not_checked").length, "check")} of ${checks.length} done`;
  const counted = (["error", "warning"] as const).flatMap((severity) => {
    const count = findings.filter((finding) => finding.severity === severity).length;
    return count === 0 ? [] : [plural(count, severity)];
  });
  const found = counted.length === 0 ? "no errors" : counted.join(", ");
  if (isOld)
    return html`<p class="warning">The present state is not known. The last examination found ${found}: ${done}.`;
  const worst = findings.find(({ severity }) => severity !== "note")?.severity ?? "ok";
  return html`<p class="${worst}">${found.charAt(0).toUpperCase()}${found.slice(1)}: ${done}.`;
}

function findingsOf({ findings }: Report, isOld: boolean): Html | string {
  if (findings.length === 0) return "";
  return table(isOld ? "Findings of the last examination" : "Findings", findings, [
    { head: "Severity", cell: ({ severity }) => html`<strong class="${severity}">${severity}</strong>` },
    { head: "Check", cell: ({ check }) => check },
    { head: "Finding", cell: ({ what }) => short(withoutPasswords(what)) },
    { head: "Remedy", cell: ({ remedy }) => short(withoutPasswords(remedy)) },
  ]);
}

/** Section with the leader of the subscriptions. */
export function leaderSection(read: Reading<LeaderOverview | undefined>, now: number): Html {
  return section("leader", "Leader of the subscriptions", read, (leader) =>
    leader === undefined || leader.owner === null
      ? html`<p>No process leads.</p>`
      : html`<dl><dt>Process</dt><dd>${short(leader.owner)}</dd><dt>Epoch</dt><dd>${String(leader.epoch)}</dd>
<dt>Handles all subscriptions since</dt><dd>${time(leader.completeSince, now)}</dd>
<dt>Last progress</dt><dd>${time(leader.progressAt, now)}</dd></dl>`,
  );
}

export function pendingSection(rows: Reading<readonly PendingOverview[]>, now: number, place?: ListPlace): Html {
  return tableSection({
    id: "pending",
    title: "Messages that wait for listeners, the oldest first",
    rows,
    none: "Nothing waits.",
    place,
    columns: [
      { head: "Topic", cell: ({ topic }) => short(topic) },
      {
        head: "Listener",
        cell: ({ listener, group, state }) =>
          listener !== null
            ? short(listener)
            : group !== null
              ? html`a member of ${short(group)}`
              : state === "unserved"
                ? "none is known"
                : "any listener",
      },
      { head: "State", cell: ({ state }) => backlogStateOf(state) },
      { head: "Sender", cell: ({ sender }) => (sender === null ? "enqueued" : short(sender)) },
      { head: "Messages", cell: ({ count, hasMore }) => `${count}${hasMore ? " or more" : ""}`, isNumber: true },
      { head: "Bytes", cell: ({ bytes }) => String(bytes), isNumber: true },
      { head: "Oldest", cell: ({ oldest }) => time(oldest, now) },
    ],
  });
}

function backlogStateOf(state: PendingOverview["state"]): Html | string {
  return state === "stopped" || state === "unserved"
    ? html`<strong class="error">${state}</strong>`
    : (state ?? "unknown");
}

export function topicsSection(rows: Reading<readonly TopicOverview[]>, place?: ListPlace): Html {
  return tableSection({
    id: "topics",
    title: "Topics and their listeners",
    rows,
    none: "The directory has no listeners.",
    place,
    columns: [
      { head: "Topic", cell: ({ topic }) => short(topic) },
      { head: "Listener", cell: ({ name }) => short(name) },
      { head: "Address", cell: ({ address }) => short(address) },
      { head: "State", cell: ({ running }) => (running ? "running" : "away") },
      { head: "Group", cell: ({ group }) => (group === null ? "" : short(group)) },
    ],
  });
}

export function peersSection(rows: Reading<readonly PeerOverview[]>, now: number, place?: ListPlace): Html {
  return tableSection({
    id: "peers",
    title: "Peers, those with the oldest messages first",
    rows,
    none: "No peer was ever started with this database.",
    place,
    columns: [
      { head: "Peer", cell: ({ name }) => short(name) },
      {
        head: "State",
        cell: ({ running, clean }) =>
          running
            ? "running"
            : clean === null
              ? "never ran"
              : clean
                ? "stopped"
                : html`<strong class="warning">ended uncleanly</strong>`,
      },
      { head: "Started", cell: ({ startedAt }) => time(startedAt, now) },
      { head: "Version", cell: ({ version }) => short(version) },
      {
        head: "Certificate ends",
        cell: (peer) => {
          const end = time(peer.certificateEndsAt, now);
          const severity = certificateSeverity(peer, now);
          return severity === undefined ? end : html`<strong class="${severity}">${end}</strong>`;
        },
      },
      { head: "Waiting", cell: ({ waiting }) => String(waiting), isNumber: true },
      { head: "Oldest", cell: ({ oldestWaitingAt }) => time(oldestWaitingAt, now) },
      { head: "Parked", cell: ({ parked }) => String(parked), isNumber: true },
      { head: "Sends on", cell: ({ sendsOn }) => plural(sendsOn, "channel"), isNumber: true },
      { head: "Listens on", cell: ({ listensOn }) => plural(listensOn, "channel"), isNumber: true },
      { head: "Topics", cell: ({ topics }) => (topics.length === 0 ? "" : short(topics.join(", "))) },
    ],
  });
}

export function outboxSection(rows: Reading<readonly OutboxOverview[]>, now: number): Html {
  const counted = (count: number) =>
    count < outboxConstants.countedMessages ? String(count) : `${outboxConstants.countedMessages} or more`;
  return tableSection({
    id: "outbox",
    title: "Enqueued messages",
    rows,
    none: "There is no outbox.",
    columns: [
      { head: "Kind", cell: ({ kind }) => kind },
      { head: "Waiting", cell: ({ waiting }) => counted(waiting), isNumber: true },
      { head: "Oldest waiting", cell: ({ oldestWaitingAt }) => time(oldestWaitingAt, now) },
      { head: "Waits for", cell: ({ oldestWaitingFor }) => short(oldestWaitingFor) },
      { head: "Position saved", cell: ({ positionSavedAt }) => time(positionSavedAt, now) },
      {
        head: "Relay",
        cell: ({ kind, relay, isAwake }) =>
          kind === "peer" ? "" : relay === null ? "none" : html`${short(relay)}, ${isAwake ? "awake" : "asleep"}`,
      },
      { head: "Due later", cell: ({ later }) => counted(later), isNumber: true },
      { head: "Next due", cell: ({ nextDueAt }) => time(nextDueAt, now) },
    ],
  });
}

export function scheduledSection(rows: Reading<readonly ScheduledMessage[]>, now: number, place?: ListPlace): Html {
  return tableSection({
    id: "scheduled",
    title: "Messages that are due later, the next first",
    rows,
    none: "No message is scheduled.",
    place,
    columns: [
      { head: "Id", cell: ({ id }) => id, isNumber: true },
      { head: "Due", cell: ({ deliverAt }) => time(deliverAt, now) },
      { head: "For", cell: ({ destination }) => short(destination) },
      { head: "Key", cell: ({ key }) => short(key) },
      { head: "Bytes", cell: ({ payloadBytes }) => String(payloadBytes), isNumber: true },
    ],
  });
}

export function streamsSection(rows: Reading<readonly StreamRow[]>, now: number, place?: ListPlace): Html {
  return tableSection({
    id: "streams",
    title: "Subscriptions to streams",
    rows,
    none: "No function is subscribed to a stream.",
    place,
    columns: [
      { head: "Name", cell: ({ name }) => short(name) },
      { head: "Stream", cell: ({ stream }) => short(stream) },
      { head: "Function", cell: (row) => short(row.function) },
      { head: "Done to", cell: ({ done_to }) => (done_to === null ? "not begun" : String(done_to)), isNumber: true },
      { head: "Behind", cell: ({ lag }) => (lag === null ? "unknown" : String(lag)), isNumber: true },
      {
        head: "Missing",
        cell: ({ missing, missing_reason }) =>
          missing_reason === null ? String(missing) : `${missing} (${missing_reason})`,
        isNumber: true,
      },
      {
        head: "State",
        cell: ({ paused, problem }) =>
          problem === null ? (paused ? "paused" : "runs") : html`<strong class="error">${short(problem)}</strong>`,
      },
      { head: "Written", cell: ({ written_at }) => time(written_at, now) },
    ],
  });
}

export function schedulesSection(rows: Reading<readonly ScheduleOverview[]>, now: number, place?: ListPlace): Html {
  return tableSection({
    id: "schedules",
    title: "Schedules, those that do not run and the next ones first",
    rows,
    none: "There are no schedules.",
    place,
    columns: [
      { head: "Name", cell: ({ name }) => short(name) },
      { head: "Role", cell: ({ role }) => short(role) },
      { head: "Cron", cell: ({ cron, timezone }) => html`${short(cron)} ${short(timezone)}` },
      { head: "For", cell: ({ kind, destination }) => html`${kind} ${short(destination)}` },
      { head: "Last", cell: ({ lastAt }) => time(lastAt, now) },
      { head: "Next", cell: ({ nextAt }) => time(nextAt, now) },
      {
        head: "Problem",
        cell: ({ problem }) => (problem === null ? "" : html`<strong class="error">${short(problem)}</strong>`),
      },
    ],
  });
}
