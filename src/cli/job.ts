/** `hawser job`: what has become of an enqueued message, and what its handler returned. */

import { job } from "../enqueue/index.js";
import { HawserError } from "../errors/index.js";
import { withCommandDatabase } from "../operate/index.js";
import { defineCommand, flag, required } from "./command-line.js";
import { sqlClientOf } from "./enqueue.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { print, printable, printOutcomes } from "./output.js";

export const command = defineCommand({
  details:
    "A message that has ended is known if its result is kept (keepMs, --keep, hawser.keep_result, or `hawser topics keep`), until that time is over. " +
    "Only messages of the login, and of roles that it is a member of",
  args: {
    id: required("Id of the message", { valueHint: "ID" }),
    ...databaseOption,
    json: flag("Print it as one line of JSON"),
  },
  run: async (args) => {
    const { id, json = false } = args;
    if (!/^-?\d{1,19}$/.test(id))
      throw new HawserError("invalid_argument", `the id "${printable(id)}" is not a number`);
    const found = await withCommandDatabase(
      databaseUrlOf(args),
      (database) => job(sqlClientOf(database, "look for the message"), BigInt(id)),
      { anyLogin: true },
    );
    const lines = Object.entries(found).flatMap(([name, value]) => {
      if (value === undefined) return [];
      const text = typeof value === "string" ? value : JSON.stringify(value);
      return [`${name}: ${printable(text)}`];
    });
    await printOutcomes([{ id, ...found }], json, () => lines.join("\n"));
    if (found.state === "unknown" && !json) {
      print(
        process.stderr,
        "No such message of this login waits, and no result of it was kept (--keep of `hawser enqueue`, `hawser topics keep`).",
      );
    }
  },
  examples: [
    ["hawser job 17", "State, attempts, progress, and the result or the error"],
    ["hawser job 17 --json | jq .result", "What the handler returned"],
  ],
});
