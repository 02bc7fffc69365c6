/** `hawser topics`: lists the directory of listeners, and changes the settings of topics. */

import { limits as rules } from "../../../generated/ts/rules/queue/queue.js";
import { topicsTable } from "../console/index.js";
import {
  keepResults,
  limitTopic,
  listTopics,
  pauseTopic,
  resumeTopic,
  type TopicLimits,
  withCommandDatabase,
} from "../operate/index.js";
import { type Arguments, actionOf, defineCommand, flag, option, optional, refusal } from "./command-line.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { printable, printOutcomes, printRows } from "./output.js";
import { overviewRows } from "./overview-rows.js";
import { quantityOf, wholeNumber } from "./quantities.js";

const actions = ["list", "pause", "resume", "limit", "keep"] as const;

const limitOptions = {
  rate: option("RATE", "With limit: starts in a second, minute, hour or day, such as 100/s, 10/m, 500/h or 1000/d"),
  burst: option("N", "With --rate: starts at once after a pause. Default: one more than the rate allows in a second"),
  running: option("N", "With limit: messages that are handled at a time, in all processes"),
  "running-per-key": option("N", "With limit: messages of one role and key that are handled at a time"),
  "key-header": option("NAME", "With --running-per-key: header that has the key. Default: the key of the message"),
  none: flag("With limit: end all limits. With keep: keep no results"),
} as const satisfies Arguments;

export const command = defineCommand({
  details:
    "A listener that is not running is in the list because it is durable, because an operator added it, or " +
    "because it crashed. `pause TOPIC` lets no other message of a topic begin, in any process, until `resume TOPIC`. " +
    "`limit TOPIC` sets its limits, in place of those before. `keep TOPIC TIME` has the results of its messages kept",
  args: {
    action: optional("Default: list", { valueHint: actions.join("|") }),
    topic: optional("The topic to pause, resume or limit, or whose results are kept", { valueHint: "TOPIC" }),
    time: optional("With keep: how long after the end of a message, from 1s to 7d", { valueHint: "TIME" }),
    ...limitOptions,
    ...databaseOption,
    json: flag("Print each line as JSON"),
  },
  run: async (args) => {
    const { topic, time, json = false } = args;
    const action = actionOf("topics", args.action ?? "list", actions);
    const url = databaseUrlOf(args);
    if (action !== "list" && topic === undefined) throw refusal("topics", action, "name the topic");
    const given = Object.keys(limitOptions).filter((name) => args[name as keyof typeof limitOptions] !== undefined);
    const stray = given.find((name) => action !== "limit" && !(action === "keep" && name === "none"));
    if (stray !== undefined) throw refusal("topics", action, `--${stray} goes with limit`);
    if (action !== "keep" && time !== undefined) throw refusal("topics", action, `only keep takes a time: "${time}"`);
    if (action === "limit" && (args.none ? given.length > 1 : given.length === 0))
      throw refusal("topics", action, "give the limits, or --none alone to end them");
    if (action === "limit") {
      const limits: TopicLimits = {
        ...{ rate: args.rate, keyHeader: args["key-header"], burst: wholeNumber("--burst", args.burst) },
        running: wholeNumber("--running", args.running),
        runningPerKey: wholeNumber("--running-per-key", args["running-per-key"]),
      };
      await limit(url, topic!, limits, json);
    } else if (action === "keep") {
      if ((time === undefined) !== (args.none === true))
        throw refusal("topics", action, "give a time such as 1h, or --none to keep no results");
      await keep(url, topic!, quantityOf("duration", "TIME", time, rules.TopicSetting.keepMs) ?? null, json);
    } else if (action === "pause") await pause(url, topic!, json);
    else if (action === "resume") await resume(url, topic!, json);
    else if (topic === undefined) {
      const rows = await withCommandDatabase(url, (database) => listTopics(database), { anyLogin: true });
      await printRows(rows, overviewRows(topicsTable, json));
    } else throw refusal("topics", action, `it lists all topics, and takes none: "${topic}"`);
  },
  examples: [
    ["hawser topics", "What waits for each topic, and who listens"],
    [
      `hawser topics --json | jq -r '.listeners[] | select(.running | not) | .name'`,
      "Names of listeners that are not running",
    ],
    ["hawser topics pause mail", "Let messages of a topic wait, in all processes"],
    ["hawser topics resume mail", "Go on with them"],
    ["hawser topics limit mail --rate 100/s --burst 20 --running 8", "Keep to the limits of a mail server"],
    ["hawser topics keep reports 1h", "Keep what becomes of each message, and its result, for `hawser jobs show`"],
    ["hawser topics limit pdf --running-per-key 1 --key-header tenant", "Let each tenant have one at a time"],
  ],
});

async function pause(url: string | undefined, topic: string, json: boolean): Promise<void> {
  const { changed, ...pause } = await withCommandDatabase(url, (database) => pauseTopic(database, topic));
  const outcome = changed ? "paused" : "unchanged";
  await printOutcomes([{ topic, outcome, ...pause }], json, () =>
    changed
      ? `Paused the topic "${printable(topic)}": messages that are being handled end, and no other one begins.`
      : `The topic "${printable(topic)}" is paused since ${pause.pausedAt.toISOString()}, by ${printable(pause.pausedBy)}.`,
  );
}

async function resume(url: string | undefined, topic: string, json: boolean): Promise<void> {
  const resumed = await withCommandDatabase(url, (database) => resumeTopic(database, topic));
  await printOutcomes([{ topic, outcome: resumed ? "resumed" : "unchanged" }], json, () =>
    resumed ? `Resumed the topic "${printable(topic)}".` : `The topic "${printable(topic)}" is not paused.`,
  );
}

async function limit(url: string | undefined, topic: string, limits: TopicLimits, json: boolean): Promise<void> {
  await withCommandDatabase(url, (database) => limitTopic(database, topic, limits));
  const isLimited = Object.values(limits).some((value) => value !== undefined);
  await printOutcomes([{ topic, outcome: isLimited ? "limited" : "unlimited" }], json, () =>
    isLimited
      ? `Limited the topic "${printable(topic)}". \`hawser topics\` shows its limits.`
      : `The topic "${printable(topic)}" has no limits.`,
  );
}

async function keep(url: string | undefined, topic: string, keepMs: number | null, json: boolean): Promise<void> {
  await withCommandDatabase(url, (database) => keepResults(database, topic, keepMs));
  await printOutcomes([{ topic, outcome: keepMs === null ? "unkept" : "kept", keepMs }], json, () =>
    keepMs === null
      ? `The topic "${printable(topic)}" keeps no results.`
      : `Results of the topic "${printable(topic)}" are kept, for \`hawser jobs show\`.`,
  );
}
