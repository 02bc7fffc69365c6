/** The action `retention` of commands: shows or sets the age at which peers delete rows. */
import { databaseSettingsRanges } from "../../../generated/ts/settings/peer.js";
import { plural } from "../../foundation/errors/index.js";
import { readRetention, setRetention, withCommandDatabase } from "../operate/index.js";
import { refusal } from "./command-line.js";
import { printOutcomes } from "./output.js";
import { wholeNumber } from "./quantities.js";

const kinds = {
  dead: { kind: "dead letters", setting: "deadLetterRetentionDays", what: "dead letters" },
  audit: { kind: "audit", setting: "auditRetentionDays", what: "records of what operators have done" },
} as const;

/**
 * Shows the retention of a command, or sets it to a number of days.
 *
 * @param values at most one text: the days
 * @throws HawserError `invalid_argument`; as `setRetention`
 */
export async function retention(
  command: keyof typeof kinds,
  values: readonly string[],
  { url, json }: { readonly url: string | undefined; readonly json: boolean },
): Promise<void> {
  const { kind, setting, what } = kinds[command];
  if (values.length > 1)
    throw refusal(command, "retention", `it takes one number of days, and "${values[1]}" is one more`);
  const days = wholeNumber("DAYS", values[0], databaseSettingsRanges[setting]);
  const current = await withCommandDatabase(url, async (database) => {
    if (days !== undefined) await setRetention(database, kind, days);
    return readRetention(database, kind);
  });
  await printOutcomes(
    [{ [setting]: current }],
    json,
    () => `Peers delete ${what} that are older than ${plural(current, "day")}.`,
  );
}
