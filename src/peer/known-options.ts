/**
 * Refuses options that a Peer, a send or a stop does not have.
 */
import { type PeerSettings, peerSettingsDefaults } from "../../generated/ts/settings/peer.js";
import { namesOf, PeerError, unknownOption } from "../errors/index.js";
import type { TlsOptions } from "../transport/index.js";
import type { SendOptions } from "./message.js";
import type { PeerOptions } from "./options.js";
import type { StopOptions } from "./peer.js";

const besideSettings = namesOf<Omit<PeerOptions, keyof PeerSettings>>({
  name: true,
  topic: true,
  listen: true,
  databaseUrl: true,
  sessionUrl: true,
  advertise: true,
  tls: true,
  logger: true,
});

const known = {
  "a Peer": [...besideSettings, ...Object.keys(peerSettingsDefaults)],
  tls: namesOf<TlsOptions>({
    cert: true,
    key: true,
    passphrase: true,
    ca: true,
    mutual: true,
    verify: true,
    serverName: true,
  }),
  "a send": namesOf<SendOptions>({ delivery: true, headers: true, signal: true }),
  stop: namesOf<StopOptions>({ deadlineMs: true }),
} as const;

/** @throws PeerError `invalid_argument` for the first name that is no option, with the one that was probably meant */
export function checkKnownOptions(options: object | undefined, of: keyof typeof known): void {
  if (options === undefined || options === null) return;
  const problem = unknownOption(options, of, known[of]);
  if (problem !== undefined) throw new PeerError("invalid_argument", problem);
}
