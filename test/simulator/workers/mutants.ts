/** Departures from the rules of a worker, each of which the simulator must catch: they show that it can fail. */
import { RunningTurns } from "../../../src/jobs-and-peers/queue/worker/running-turns.js";
import type { Term } from "../../../src/jobs-and-peers/queue/worker/term.js";
import { WorkerMachine } from "../../../src/jobs-and-peers/queue/worker/worker-machine.js";
import { events, type MutantOptions, simulation } from "../simulation.js";
import { WorkerWorld } from "./world.js";

/** Parts of a run that a mutant replaces. */
export interface WorkerMutant extends MutantOptions {
  readonly Machine?: typeof WorkerMachine;
}

/** A machine whose terms are changed. */
const ofTerm = (change: (term: Term) => void): typeof WorkerMachine =>
  class extends WorkerMachine {
    override get term(): Term | undefined {
      const term = super.term;
      if (term !== undefined) change(term);
      return term;
    }
  };

const nothing = (): undefined => undefined;

class ForgetsHandlers extends WorkerMachine {
  override readonly turns = Object.assign(new RunningTurns(this), { resume: () => false });
}

class KeepsItsTerm extends WorkerMachine {
  override sessionDown(): void {}
  override lost(): void {}
}

const mustHappen = [
  ...events("fault", "cut", "reset", "kill", "stall", "stop", "pause", "pause everywhere", "cancel"),
  ...events("fault", "statement failed", "answer lost", "carried out after the cut", "lease ended"),
  ...events("transition", "taken", "went on with a worker", "given up", "stopped", "cut off", "a row is another's"),
  ...events("transition", "a statement failed"),
  ...events("statement", "take", "extend", "rest", "giveBack", "done", "retry", "giveUp", "begin", "beginUnique"),
  ...events("statement", "endCancelled", "waitFor", "stopWaiting"),
  "checked",
];

const mutants: Readonly<Record<string, WorkerMutant>> = {
  "forgets the handlers of earlier terms": { Machine: ForgetsHandlers, says: /two handlers|forgotten|started again/ },
  "keeps what was taken behind what it gave back": {
    Machine: ofTerm((term) => {
      const { plan } = term.takes;
      Object.assign(term.takes, {
        gaveBack: (rows: readonly { readonly topic: string }[]) => {
          for (const { topic } of rows) plan.wantsAll(topic);
        },
      });
    }),
    seeds: 3_000,
    says: /before row|not the worker's/,
  },
  "keeps its term when an answer is lost": { Machine: KeepsItsTerm },
  "keeps what was taken of a paused topic": {
    Machine: ofTerm((term) => Object.assign(term, { giveBack: nothing })),
    says: /is paused|that stops/,
  },
};

/** Workers of the queue: the state machine that takes and handles jobs. */
export const workers = simulation<WorkerMutant>("workers", (seed, mutant) => new WorkerWorld(seed, mutant), mutants, {
  mustHappen,
});
