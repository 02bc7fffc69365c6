/** `hawser why`: what a job waits for. */
import { HawserError } from "../../foundation/errors/index.js";
import { duration } from "../console/index.js";
import { type Condition, why, withCommandDatabase } from "../operate/index.js";
import { defineCommand, flag, option, optional, seeHelp } from "./command-line.js";
import { databaseOption, databaseUrlOf, idOf } from "./options.js";
import { printable, printOutcomes } from "./output.js";

export const command = defineCommand({
  details:
    "It is for enqueued jobs of the login, and of roles that it is a member of. `hawser pending` has messages that peers sent, too. " +
    "--json has all conditions under which a worker takes the job, as the SQL function hawser.why",
  args: {
    id: optional("The job. Without it, --topic names the topic whose first waiting job is asked about", {
      valueHint: "ID",
    }),
    ...databaseOption,
    topic: option("TOPIC", "The first waiting job of this topic"),
    key: option("KEY", "With --topic: the first waiting job with this key"),
    json: flag("Print each condition as JSON"),
  },
  run: async ({ id, topic, key, json = false, ...args }) => {
    if ((id === undefined) === (topic === undefined)) throw refused("name one job by its id, or a --topic");
    if (key !== undefined && topic === undefined) throw refused("--key goes with --topic");
    const asked = topic === undefined ? { id: idOf(id!) } : { topic, key };
    const conditions = await withCommandDatabase(databaseUrlOf(args), (database) => why(database, asked), {
      anyLogin: true,
    });
    await printOutcomes(conditions.map(asJson), json, () => textOf(conditions));
  },
  examples: [
    ["hawser why 17", "What the job 17 waits for"],
    ["hawser why --topic orders --key customer-7", "What the first job of a customer waits for"],
    ["hawser why 17 --json | jq 'select(.isMet | not) | .remedy'", "What to do"],
  ],
});

const refused = (why: string): HawserError =>
  new HawserError("invalid_argument", `\`hawser why\`: ${why}. ${seeHelp("why")}`);

const asJson = ({ jobId, ...condition }: Condition): object => ({
  id: jobId === null ? null : String(jobId),
  ...condition,
});

function textOf(conditions: readonly Condition[]): string {
  const id = conditions[0]?.jobId;
  const held = conditions.filter(({ isMet }) => !isMet);
  if (held.length === 0) return `Nothing holds the job ${id}: a worker that serves it takes it with its next look.`;
  return [
    ...(id === null ? [] : [`Job ${id}:`]),
    ...held.flatMap(({ condition, explanation, since, remedy }) => [
      `- ${printable(sentence(explanation ?? ""))}${since === null ? "" : sinceText(condition, since)}`,
      ...(remedy === null ? [] : [`  ${printable(remedy)}`]),
    ]),
  ].join("\n");
}

const sentence = (text: string): string => `${text.slice(0, 1).toUpperCase()}${text.slice(1)}`;

function sinceText(condition: string, since: Date): string {
  const passed = duration(Math.max(0, Date.now() - since.getTime()));
  if (condition === "waits") return ` (${passed} ago)`;
  return condition === "due" ? ` (the last attempt failed ${passed} ago)` : ` (for ${passed})`;
}
