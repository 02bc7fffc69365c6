/** Schedules: the times that a cron pattern means in a time zone, and who enqueues what is due at them. */
export { DueRunner } from "./due-runner.js";
export { checkTimes } from "./occurrences.js";
