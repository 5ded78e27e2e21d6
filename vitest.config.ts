import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    // A cold PGlite, and a machine of two busy cores.
    hookTimeout: 60_000,
    testTimeout: 30_000,
    // A third of the time is spent waiting, for processes to start and leases to end.
    maxWorkers: 3,
    projects: [
      {
        extends: true,
        test: { name: "modules", include: ["src/**/*.test.ts"] },
      },
      {
        extends: true,
        test: {
          name: "suites",
          include: ["test/**/*.test.ts"],
          exclude: ["test/oracle/**", "**/node_modules/**"],
          // Databases: only where there are suites to run, as it takes seconds.
          globalSetup: ["test/support/global-setup.ts"],
        },
      },
    ],
  },
});
