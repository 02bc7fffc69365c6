import { networkInterfaces } from "node:os";

/** An address of this machine that is not loopback, if it has one. */
export const elsewhere = Object.values(networkInterfaces())
  .flatMap((addresses) => addresses ?? [])
  .find(({ family, internal }) => family === "IPv4" && !internal)?.address;
