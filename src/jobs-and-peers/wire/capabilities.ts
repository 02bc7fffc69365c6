/** Capabilities beyond the base protocol, which peers exchange in Challenge, Hello and Welcome. */
import { Capability, Compression } from "../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { canDecompress } from "./compression.js";

/** Capabilities of this process. The type requires an entry for each capability. */
const has: { readonly [C in Exclude<Capability, Capability.UNSPECIFIED | Capability.UNRECOGNIZED>]: boolean } = {
  [Capability.GZIP]: canDecompress(Compression.GZIP),
  [Capability.ZSTD]: canDecompress(Compression.ZSTD),
  [Capability.REQUESTS]: true,
};

const known = Object.keys(has).map(Number) as (keyof typeof has)[];

/** Capabilities that this process sends in Challenge, Hello and Welcome. */
export const ownCapabilities: readonly Capability[] = known.filter((capability) => has[capability]);

/** Returns the known capabilities of a list, without duplicates. Unknown ones belong to a newer version. */
export function knownCapabilities(capabilities: readonly Capability[]): Capability[] {
  return known.filter((capability) => capabilities.includes(capability));
}

/** Returns the compression for a peer with these capabilities: zstd if both sides support it, otherwise gzip. */
export function chooseCompression(capabilities: readonly Capability[]): Compression {
  return capabilities.includes(Capability.ZSTD) && has[Capability.ZSTD] ? Compression.ZSTD : Compression.GZIP;
}
