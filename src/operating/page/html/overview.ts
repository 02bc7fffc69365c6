/** Overview: what waits, what fails, since when, and where. */
import { html } from "hono/html";
import { sampleConstants } from "../../../../generated/ts/settings/queue.js";
import { plural } from "../../../foundation/errors/index.js";
import { age, duration, type Glance, type Reading, type Tone } from "../../console/index.js";
import {
  type DeadLetterCause,
  type LeaderOverview,
  needsHelp,
  newsMs,
  type PeerPresence,
  type Series,
  type SeriesReading,
  type SeriesSpan,
  type TopicOverview,
  type Values,
} from "../../operate/index.js";
import { type ChartLine, lineChart, sparkline } from "./chart.js";
import { queryOf } from "./filter.js";
import { countText, rateText } from "./quantities.js";
import { section, table, unread } from "./table.js";
import { type Html, short, time } from "./text.js";

/** Number of topics, and of causes, that the overview shows. */
const shownFirst = 8;

/** Number at the top of the overview. */
export interface Tile {
  readonly name: string;
  readonly value: string;
  readonly unit?: string | undefined;
  /** What completes the number, below it. */
  readonly more?: Html | string | undefined;
  readonly tone?: Tone | undefined;
  /** Its last hour. */
  readonly line?: Html | undefined;
  /** Page with more about it. */
  readonly to?: string | undefined;
}

/** Row of tiles. */
export function tiles(all: readonly Tile[]): Html {
  return html`<ul class="tiles">
${all.map(
  ({
    name,
    value,
    unit,
    more,
    tone,
    line,
    to,
  }) => html`<li class="tile${tone === undefined ? "" : ` ${tone}`}"><p class="name">${to === undefined ? name : html`<a href="${to}">${name}</a>`}</p>
<p class="value">${value}${unit === undefined ? "" : html` <small>${unit}</small>`}</p><p class="more">${more ?? ""}</p>${line ?? ""}</li>\n`,
)}
</ul>`;
}

/** Rate with its unit, in words. */
const rateWords = (perSecond: number): string => {
  const { value, unit } = rateText(perSecond);
  return `${value} ${unit}`;
};

const countWords = (count: number): string => countText(Math.round(count));

/** Sparkline of the last hour. */
const lineOf = (values: Values, label: string, format: (value: number) => string, isSecond = false): Html =>
  sparkline(values, { label: `${label}, in the last hour`, format, isSecond });

/** Shares of attempts that fail from which that is an alarm. */
const failingTones: readonly (readonly [number, Tone])[] = [
  [0.5, "error"],
  [0.1, "warning"],
];

/** Tiles of what comes, goes and fails; without values where nobody takes samples. @param path page with their charts */
export function movingTiles(series: Series, path: string): Tile[] {
  const { present, durations } = series;
  const rate = (perSecond: number | null): Pick<Tile, "value" | "unit"> =>
    perSecond === null ? { value: "–" } : rateText(perSecond);
  const attempts = (present.handled ?? 0) + (present.failed ?? 0);
  const share = attempts === 0 ? 0 : (present.failed ?? 0) / attempts;
  const perSecond = series.dead.reduce((sum: number, value) => sum + (value ?? 0), 0);
  const dead = Math.round((perSecond * sampleConstants.stepMs) / 1_000);
  const percent = share === 0 ? [] : [`${share < 0.01 ? "less than 1" : Math.round(share * 100)} % of attempts`];
  const given = dead === 0 ? [] : [`${countText(dead)} given up in an hour`];
  return [
    { name: "In", ...rate(present.enqueued), line: lineOf(series.enqueued, "Enqueued", rateWords), to: path },
    {
      name: "Out",
      ...rate(present.handled),
      more: durations === undefined ? "" : `half within ${limitText(durations.medianMs)}`,
      line: lineOf(series.handled, "Handled", rateWords),
      to: path,
    },
    {
      name: "Failing",
      ...rate(present.failed),
      more: [...percent, ...given].join(", "),
      tone: failingTones.find(([least]) => share >= least)?.[1],
      line: lineOf(series.failed, "Failed attempts", rateWords, true),
      to: path,
    },
  ];
}

/** Duration of which only the upper limit is known. */
export function limitText(ms: number): string {
  if (!Number.isFinite(ms)) return "more than 30 s";
  return ms < 1_000 ? `${ms} ms` : `${ms / 1_000} s`;
}

/** Tiles of a subscription: what is known of it. */
export function subscriptionTiles(series: Series): Html {
  const { waiting, oldestMs } = series.present;
  const moving = movingTiles(series, "#charts").filter(({ value }) => value !== "–");
  const waits =
    waiting === null
      ? []
      : [
          {
            name: "Waiting",
            value: countText(waiting),
            more: emptyText(series),
            line: lineOf(series.waiting, "Waiting", countWords),
          },
        ];
  const age =
    oldestMs === null || waiting === 0
      ? []
      : [{ name: "Oldest", value: duration(oldestMs), line: lineOf(series.oldestMs, "Age of the oldest", duration) }];
  return tiles([...moving, ...waits, ...age]);
}

/** Functions that are subscribed to subjects, as the samples of the last minutes name them. */
export function subscriptionsSection(read: Reading<SeriesReading>, prefix: string): Html {
  return section("subscriptions", "Functions subscribed to subjects", read, ({ series }) =>
    series.length === 0
      ? html`<p>The samples of the last minutes name none.</p>`
      : table("Functions subscribed to subjects", series, [
          {
            head: "Subject and function",
            cell: ({ name }) =>
              html`<a href="${prefix}/subscription${queryOf({ name: name ?? "" })}">${short(name ?? "")}</a>`,
          },
          {
            head: "Waiting",
            cell: ({ present }) => (present.waiting === null ? "" : countText(present.waiting)),
            isNumber: true,
          },
          {
            head: "Oldest",
            cell: ({ present }) => (present.waiting && present.oldestMs !== null ? duration(present.oldestMs) : ""),
            isNumber: true,
          },
          {
            head: "Dead letters",
            cell: ({ present }) => (present.dead ? rateWords(present.dead) : ""),
            isNumber: true,
          },
        ]),
  );
}

/** Tiles of what waits, and for how long. */
export function waitingTiles(
  topics: readonly TopicOverview[],
  series: Series | undefined,
  prefix: string,
  now: number,
): Tile[] {
  const waiting = topics.filter(({ waiting }) => waiting > 0);
  const count = waiting.reduce((sum, topic) => sum + topic.waiting, 0);
  const [oldest] = waiting.filter(({ oldest }) => oldest !== null);
  const unread = waiting.filter(({ state }) => needsHelp(state));
  const unreadCount = unread.reduce((sum, topic) => sum + topic.waiting, 0);
  const goesOn = series === undefined || count === 0 ? "" : emptyText(series);
  return [
    {
      name: "Waiting",
      value: countText(
        count,
        waiting.some(({ hasMore }) => hasMore),
      ),
      more: unreadCount === 0 ? goesOn : html`<span class="error">${countText(unreadCount)} that nobody takes</span>`,
      line: series && lineOf(series.waiting, "Waiting", countWords),
      to: `${prefix}/backlog`,
    },
    {
      name: "Oldest",
      value: oldest === undefined ? "–" : duration(now - oldest.oldest!.getTime()),
      more: oldest === undefined ? "nothing waits" : short(oldest.topic),
      tone: oldest !== undefined && needsHelp(oldest.state) ? "error" : undefined,
      line: series && lineOf(series.oldestMs, "Age of the oldest", duration),
      to: `${prefix}/topics?sort=oldest`,
    },
  ];
}

/** When nothing will wait any more, in words. */
function emptyText({ emptyInMs }: Series): string {
  if (emptyInMs === undefined) return "";
  return emptyInMs === "never" ? "does not shrink" : `empty in ${duration(emptyInMs)}`;
}

/** Charts of what moves and of what waits, over an hour or a day. @param path page with them, to which a query string can be added */
export function chartsSection(
  { times, stepMs, series: [series] }: SeriesReading,
  span: SeriesSpan,
  path: (query: Readonly<Record<string, string>>) => string,
): Html {
  if (series === undefined) return html``;
  const other = span === "hour" ? "day" : "hour";
  const head = html`<section id="charts" aria-labelledby="charts-title"><h2 id="charts-title">The last ${span}</h2>
<p class="quiet"><a href="${path({ span: other })}#charts">Show the last ${other}</a></p>`;
  if (series.waiting.every((value) => value === null))
    return html`${head}<p>Nothing was sampled in this time. Samples are taken every ${sampleConstants.stepMs / 1_000} seconds while a page is served.</p></section>`;
  const chart = (title: string, all: readonly ChartLine[], format: (value: number) => string, axis?: "duration") => {
    // Of a subscription, only some numbers are known.
    const lines = all.filter(({ values }) => values.some((value) => value !== null));
    const [line, second] = lines;
    if (line === undefined) return "";
    const own = { title: second === undefined ? line.name : title, ...(axis !== undefined && { axis }) };
    return lineChart({ times, stepMs, lines, format, ...own });
  };
  const { enqueued, handled, failed, dead, waiting, oldestMs } = series;
  return html`${head}<div class="columns">${chart(
    "In and out",
    [
      { name: "Enqueued", values: enqueued },
      { name: "Handled", values: handled },
    ],
    rateWords,
  )}
${chart("Waiting", [{ name: "Waiting", values: waiting }], countWords)}
${chart(
  "Failed attempts and dead letters",
  [
    { name: "Failed", values: failed },
    { name: "Dead", values: dead },
  ],
  rateWords,
)}
${chart("Age of the oldest", [{ name: "Age of the oldest", values: oldestMs }], duration, "duration")}</div></section>`;
}

/** Section with the topics whose messages have waited longest. */
export function oldestTopics(read: Reading<readonly TopicOverview[]>, prefix: string, now: number): Html {
  return section("oldest", "Topics by their oldest message", read, (topics) => {
    const waiting = topics.filter(({ waiting, oldest }) => waiting > 0 && oldest !== null);
    if (waiting.length === 0) return html`<p class="ok">Nothing waits.</p>`;
    const more = waiting.length - shownFirst;
    const rest =
      more > 0
        ? html`<p class="quiet"><a href="${prefix}/topics?sort=oldest">${plural(more, "more topic")} with messages</a></p>`
        : "";
    return html`${table("Topics by their oldest message", waiting.slice(0, shownFirst), [
      {
        head: "Topic",
        cell: ({ topic }) => html`<a href="${prefix}/topic${queryOf({ name: topic })}">${short(topic)}</a>`,
      },
      { head: "State", cell: stateBadge },
      { head: "Waiting", cell: ({ waiting, hasMore }) => countText(waiting, hasMore), isNumber: true },
      { head: "Oldest", cell: ({ oldest }) => heat(oldest!, now), isNumber: true },
    ])}${rest}`;
  });
}

/** Words for the states of a backlog, where the word alone would not say what is wrong. */
const stateWords: Readonly<Record<string, string>> = {
  unserved: "nobody serves it",
  stopped: "its workers are away",
  blocked: "blocked by a dead letter",
};

/** State of a topic as a badge. */
function stateBadge({ state }: { readonly state: TopicOverview["state"] }): Html {
  const tone = needsHelp(state)
    ? " error"
    : state === "paused" || state === "limited"
      ? " warning"
      : state === "running"
        ? " ok"
        : "";
  return html`<span class="badge${tone}">${state === null ? "unknown" : (stateWords[state] ?? state)}</span>`;
}

/** Ages at which the heat of what waits has a further step: 10 s, a minute, 5 minutes, an hour. */
const heatMs = [10_000, 60_000, 300_000, 3_600_000];

/** Age with a bar that is the longer the older it is. */
function heat(oldest: Date, now: number): Html {
  const ms = now - oldest.getTime();
  const step = heatMs.filter((each) => ms >= each).length;
  return html`${time(oldest, now)} <meter aria-hidden="true" min="0" low="1.5" optimum="0" high="2.5" max="${heatMs.length}" value="${step}"></meter>`;
}

/** Section with the causes of the dead letters of the last hour; those that are new come first. */
export function recentCauses(
  glance: Glance,
  prefix: string,
  linkOf: (cause: DeadLetterCause) => string | undefined,
): Html {
  const { at: now, causes: read } = glance;
  return section("recent", "Dead letters of the last hour", read, ({ causes, examined, olderThanId }) => {
    const recent = causes.filter(({ newestAt }) => now - newestAt.getTime() < newsMs);
    const all =
      examined === 0
        ? ""
        : html`<p class="quiet"><a href="${prefix}/causes">All causes</a> of ${countText(examined, olderThanId !== undefined)} ${examined === 1 ? "dead letter" : "dead letters"}</p>`;
    if (recent.length === 0)
      return html`<p class="ok">${examined === 0 ? "There are no dead letters." : "None."}</p>${all}`;
    return html`${table("Causes of dead letters of the last hour", recent.slice(0, shownFirst), [
      {
        head: "Cause",
        cell: (cause) => {
          const to = linkOf(cause);
          const text = cause.cause === "" ? short(cause.errorCode) : short(cause.cause);
          return html`${to === undefined ? text : html`<a href="${to}">${text}</a>`}${now - cause.oldestAt.getTime() < newsMs ? html` <span class="badge warning">new</span>` : ""}`;
        },
      },
      { head: "Topic", cell: ({ topic }) => short(topic) },
      { head: "Count", cell: ({ count }) => countText(count), isNumber: true },
      { head: "Last", cell: ({ newestAt }) => time(newestAt, now), isNumber: true },
    ])}${all}`;
  });
}

/** Peers, workers and `hawser serve` in a line. */
export function processesLine(glance: Glance, hasNats: boolean, prefix: string): Html {
  const { at: now, peers, leader, isLed } = glance;
  const parts = [
    peers.state === "read" ? html`<p>${peersText(peers.value, prefix)}</p>` : unread(peers),
    hasNats ? (leader.state === "read" ? html`<p>${leaderText(leader.value, isLed, now)}</p>` : unread(leader)) : "",
  ];
  return html`<section id="processes" aria-label="Processes">${parts}</section>`;
}

function peersText(peers: readonly PeerPresence[], prefix: string): Html {
  const running = peers.filter((peer) => peer.running).length;
  const unclean = peers.filter((peer) => !peer.running && peer.clean === false).length;
  const ended = unclean === 0 ? "" : html`, <span class="warning">${unclean} ended uncleanly</span>`;
  return html`<a href="${prefix}/peers">${running === 1 ? "1 peer or worker" : `${running} peers and workers`}</a> ${running === 1 ? "runs" : "run"}${ended}. `;
}

function leaderText(leader: LeaderOverview | undefined, isLed: boolean, now: number): Html {
  if (leader === undefined || !isLed) return html`<span class="error">No <code>hawser serve</code> leads.</span>`;
  const { completeSince, progressAt } = leader;
  const since =
    completeSince === null
      ? "does not handle all subscriptions yet"
      : `has handled all subscriptions for ${duration(now - completeSince.getTime())}`;
  const progress = progressAt === null ? "" : `, last progress ${age(now - progressAt.getTime())}`;
  return html`<code>hawser serve</code> ${since}${progress}.`;
}
