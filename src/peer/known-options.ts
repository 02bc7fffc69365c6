/**
 * Refuses options that a Peer does not have: a mistyped one that is silently ignored is worse than a refusal.
 */
import { suggestOption } from "../../generated/ts/nats-options/suggest.js";
import { type PeerSettings, peerSettingsDefaults } from "../../generated/ts/settings/peer.js";
import { PeerError } from "../errors/index.js";
import type { PeerOptions } from "./options.js";

/** What is no setting of the spec. The compiler asks for each of them here. */
const besideSettings: Readonly<Record<Exclude<keyof PeerOptions, keyof PeerSettings>, true>> = {
  name: true,
  topic: true,
  listen: true,
  databaseUrl: true,
  sessionUrl: true,
  advertise: true,
  tls: true,
  logger: true,
};

const known: readonly string[] = [...Object.keys(besideSettings), ...Object.keys(peerSettingsDefaults)];
const inLowerCase = known.map((name) => name.toLowerCase());

/** Longer names are nobody's slip of the finger. */
const longestGuessed = 100;

/** @throws PeerError `invalid_argument` for the first name that is no option, with the one that was probably meant */
export function checkKnownOptions(names: readonly string[]): void {
  const unknown = names.find((name) => !known.includes(name));
  if (unknown === undefined) return;
  const close = suggestOption(unknown, inLowerCase, longestGuessed);
  const remedy =
    close === undefined ? `the options are ${known.join(", ")}` : `did you mean ${known[inLowerCase.indexOf(close)]}?`;
  throw new PeerError("invalid_argument", `${JSON.stringify(unknown)} is no option of a Peer; ${remedy}`);
}
