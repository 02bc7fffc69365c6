/** Departures from the rules of streams, each of which the simulator must catch: they show that it can fail. */
import { events, type MutantOptions, simulation } from "../simulation.js";
import { StreamWorld, type streamFaults } from "./world.js";

export interface StreamMutant extends MutantOptions {
  readonly acknowledgesEarly?: boolean;
  readonly positionApart?: boolean;
  readonly trustsConsumer?: boolean;
  readonly trustsLook?: boolean;
  readonly noRestart?: boolean;
  readonly keepsPosition?: boolean;
  readonly skipsInSilence?: boolean;
  readonly noGeneration?: boolean;
  readonly highestDone?: boolean;
  readonly deletesFirst?: boolean;
  readonly goesOnWhenSetBack?: boolean;
  /** Only these faults, and all of them, so often. */
  readonly faults?: readonly (typeof streamFaults)[number][];
  readonly faultTimes?: number;
  readonly retention?: "limits" | "interest";
  readonly lanes?: number;
}

const mustHappen = [
  ...events("fault", "kill", "twin", "failover", "outage", "cut", "purge", "recreate", "setback", "consumer", "delete"),
  ...events("fault", "delivery lost", "answer to a commit lost"),
  ...events("transition", "taken", "consumer kept", "consumer made anew", "reading", "paused", "batch committed"),
  ...events("transition", "batch moved", "done before", "missing cut_short", "missing recreated", "missing between"),
];

const mutants: Readonly<Record<string, StreamMutant>> = {
  "acknowledges before the commit": { acknowledgesEarly: true, retention: "interest", faults: ["kill"], faultTimes: 5 },
  "writes the position in another transaction": { positionApart: true, faults: ["kill"], faultTimes: 5 },
  "trusts a consumer beyond the position": {
    firstSeed: 14,
    trustsConsumer: true,
    faults: ["kill", "failover"],
    faultTimes: 5,
  },
  "reads a consumer that another one has taken from since": { trustsLook: true, faults: ["twin"], faultTimes: 6 },
  "no restart after a lost session": { noRestart: true, faults: ["failover"], faultTimes: 10, seeds: 500 },
  "keeps the position over a stream that was made anew": { keepsPosition: true, faults: ["recreate"], faultTimes: 3 },
  "skips a gap in silence": { skipsInSilence: true, faults: ["cut", "outage"], faultTimes: 5 },
  "commits what another generation has read": { noGeneration: true, faults: ["twin", "kill"], faultTimes: 6 },
  "takes the highest finished one for the position": { highestDone: true, lanes: 4, faults: ["kill"], faultTimes: 5 },
  "deletes a consumer before it makes another one": {
    deletesFirst: true,
    retention: "interest",
    faults: ["kill"],
    faultTimes: 5,
  },
  "goes on when the stream was set back": { goesOnWhenSetBack: true, faults: ["setback"], faultTimes: 3 },
};

/** Subscriptions to streams. */
export const streams = simulation<StreamMutant>("streams", (seed, mutant) => new StreamWorld(seed, mutant), mutants, {
  seeds: 300,
  firstSeed: 196,
  mustHappen,
});
