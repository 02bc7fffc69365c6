/** Data of the operator's page and of `hawser top`, without rendering: sections, verdicts of `hawser doctor`, retries and discards. */
export { type Abilities, readAbilities } from "./abilities.js";
export { age, duration } from "./age.js";
export { enqueueLike } from "./enqueue-like.js";
export {
  type Badge,
  type Badges,
  badgesOf,
  type Glance,
  Glances,
  type Place,
  type ShownGlance,
  signsOf,
} from "./glance.js";
export { type MassAction, type MassActionKind, MassActions, undoMs } from "./mass-actions.js";
export {
  type Cell,
  columnsIn,
  countedForm,
  firstJobsTable,
  heldForText,
  jobsTable,
  type ListedJobRow,
  listedJobsTable,
  type OverviewColumn,
  type OverviewTable,
  outboxTable,
  peersTable,
  pendingTable,
  scheduledTable,
  schedulesTable,
  streamsTable,
  type Tone,
  topicRatesTable,
  topicsTable,
} from "./overview-tables.js";
export { type Reading, reading } from "./reading.js";
export { Sampler } from "./sampler.js";
export {
  examinedDeadLetters,
  readSnapshot,
  type Sections,
  type Snapshot,
  sections,
  shownRows,
  snapshotRows,
} from "./sections.js";
export { type TopicRates, type TopSort, topSorts } from "./topic-rates.js";
export { type ShownVerdict, Verdicts } from "./verdict.js";
