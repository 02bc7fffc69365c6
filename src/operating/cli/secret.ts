/** `hawser secret`: rotates the mesh secret, which is never printed. */
import { ago } from "../../foundation/errors/index.js";
import { meshSecrets, withCommandDatabase } from "../operate/index.js";
import { actionOf, defineCommand, flag, required } from "./command-line.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { printRows } from "./output.js";

export const command = defineCommand({
  details:
    "`rotate` adds a new one, which all running peers adopt; then `retire` removes the older ones. Both need " +
    "hawser_owner. The secret itself is never shown",
  args: {
    action: required("list, rotate or retire"),
    ...databaseOption,
    json: flag("Print each secret's id and age as one line of JSON"),
  },
  run: async (args) => {
    const action = actionOf("secret", args.action, ["list", "rotate", "retire"]);
    const entries = await withCommandDatabase(databaseUrlOf(args), async (database) => {
      const { meshSecrets: list, rotateSecret, retireSecret } = meshSecrets(database);
      if (action === "list") return list();
      return action === "rotate" ? [await rotateSecret()] : retireSecret();
    });
    const now = Date.now();
    const rows = entries.map(({ id, createdAt }) => ({
      ...(action === "list" ? {} : { action: done[action] }),
      id,
      createdAt,
      ageSeconds: Math.max(0, Math.floor((now - createdAt.getTime()) / 1000)),
    }));
    await printRows(rows, {
      json: args.json ?? false,
      none: "There is no mesh secret.",
      columns: [
        { head: "SECRET", cell: ({ id }) => id },
        { head: "MADE", cell: ({ createdAt }) => createdAt.toISOString() },
        { head: "AGE", cell: ({ ageSeconds }) => ago(ageSeconds) },
        ...(action === "list" ? [] : [{ head: "", cell: () => done[action] }]),
      ],
    });
  },
  examples: [
    ["hawser secret list", "Valid secrets and their ages"],
    ["hawser secret rotate", "Add a new one; nothing is interrupted"],
    ["hawser secret retire", "Some time later, refuse peers that know only the older secret"],
  ],
});

const done = { rotate: "added", retire: "retired" } as const;
