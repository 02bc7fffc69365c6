import { describe, expect, it } from "vitest";
import { type FetchStep, Lane, type Outcome, type Step } from "../../../../src/bridge/lanes/index.js";
import { atDepth } from "../../../support/depth.js";
import { runSuccessions } from "./succession.js";

class ForgetsWhatWasSaved extends Lane {
  constructor(...[subscription, context]: ConstructorParameters<typeof Lane>) {
    super(subscription, context, false);
  }
}

class DeletesWhatItHasRead extends Lane {
  protected override takeFetch(): FetchStep | undefined {
    const step = super.takeFetch();
    return step && { ...step, doneUpTo: step.doneUpTo + 1n };
  }
}

class RunsOneOfItsOwnFirst extends Lane {
  private hasRun = false;

  protected override takeFetch(): FetchStep | undefined {
    if (this.hasRun || this.messages.length === 0) return super.takeFetch();
    this.hasRun = true;
    return undefined;
  }
}

class ForgetsAfterAFailedFetch extends Lane {
  override settle(step: Step, outcome: Outcome, now: number): void {
    const isFailed = step.kind === "fetch" && outcome.kind !== "fetched";
    super.settle(step, isFailed ? { kind: "fetched", saved: [] } : outcome, now);
  }
}

class SavesNothingAtTheEnd extends Lane {
  override get unfinished() {
    return [];
  }
}

class NeverDeletes extends Lane {
  override get savedDoneUpTo(): bigint {
    return 0n;
  }
}

class SavesInTheOtherOrder extends Lane {
  override get unfinished() {
    return [...super.unfinished].toReversed();
  }
}

describe("processes that lead one after the other", () => {
  it("run everything in order that was not in one that was killed, and nothing twice but a page of the table", () => {
    const { counts, failure } = runSuccessions(atDepth(200_000));
    expect(failure).toBeUndefined();
    for (const what of ["fetched", "repeated", "killed", "ended in order", "handed in"]) {
      expect(counts.get(what), what).toBeGreaterThan(100);
    }
  });

  it.each([
    ForgetsWhatWasSaved,
    DeletesWhatItHasRead,
    RunsOneOfItsOwnFirst,
    ForgetsAfterAFailedFetch,
    SavesNothingAtTheEnd,
    NeverDeletes,
    SavesInTheOtherOrder,
  ])("are caught when one %o", (mutant) => {
    expect(runSuccessions(5_000, mutant).failure).toMatch(/^seed/);
  });
});
