/** `hawser why`: what a job waits for. */
import { HawserError } from "../../foundation/errors/index.js";
import { age } from "../console/index.js";
import { type Condition, why, withCommandDatabase } from "../operate/index.js";
import { defineCommand, flag, option, optional, seeHelp } from "./command-line.js";
import { databaseOption, databaseUrlOf, idOf } from "./options.js";
import { printable, printOutcomes } from "./output.js";

export const command = defineCommand({
  details:
    "Asks for each condition under which a worker takes the job, and names those that are not met: what holds the job, since " +
    "when, and the remedy. Only jobs of the login, and of roles that it is a member of. The SQL function hawser.why has the same",
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
  const met = conditions.filter(({ isMet }) => isMet).map(({ condition }) => condition);
  return [
    ...(id === null ? [] : [`Job ${id}:`]),
    ...held.flatMap(({ condition, explanation, since, remedy }) => [
      `  ${condition}: ${printable(explanation ?? "")}${since === null ? "" : `, since ${age(Date.now() - since.getTime())}`}`,
      ...(remedy === null ? [] : [`    ${printable(remedy)}`]),
    ]),
    ...(met.length === 0 ? [] : [`  met: ${met.join(", ")}`]),
  ].join("\n");
}
