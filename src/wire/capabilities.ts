/**
 * What a side can do beyond the base protocol, as Challenge, Hello and Welcome say it.
 */
import { Capability, Compression } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { canDecompress } from "./compression.js";

/** Whether this process has a capability. The compiler reports one that is missing. */
const has: { readonly [C in Exclude<Capability, Capability.UNSPECIFIED | Capability.UNRECOGNIZED>]: boolean } = {
  [Capability.GZIP]: canDecompress(Compression.GZIP),
  [Capability.ZSTD]: canDecompress(Compression.ZSTD),
  [Capability.REQUESTS]: true,
};

const known = Object.keys(has).map(Number) as (keyof typeof has)[];

/** What this process names in Challenge, Hello and Welcome. */
export const ownCapabilities: readonly Capability[] = known.filter((capability) => has[capability]);

/** Those among some capabilities that are known here, each once: any other belongs to a newer version. */
export function knownCapabilities(capabilities: readonly Capability[]): Capability[] {
  return known.filter((capability) => capabilities.includes(capability));
}

/** The compression to use towards a side with these capabilities: zstd where both have it, else gzip. */
export function chooseCompression(capabilities: readonly Capability[]): Compression {
  return capabilities.includes(Capability.ZSTD) && has[Capability.ZSTD] ? Compression.ZSTD : Compression.GZIP;
}
