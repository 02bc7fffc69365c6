/**
 * Loaded before `hawser serve`: SIGUSR2 makes a promise reject that nobody handles, SIGPIPE throws where nobody catches.
 */
process.on("SIGUSR2", () => void Promise.reject(new Error("a defect for a test")));
process.on("SIGPIPE", () => {
  throw new Error("a defect for a test");
});
