-- What is not as it was recorded on the machine's host.
ALTER TABLE vm ADD COLUMN findings TEXT;

-- Which file it is, how long, and when it was last written to, as seen first.
ALTER TABLE layer ADD COLUMN mark TEXT;
ALTER TABLE snapshot ADD COLUMN memory_mark TEXT;

-- What the machine's guest may still come to write.
ALTER TABLE vm ADD COLUMN growth_bytes BIGINT NOT NULL DEFAULT 0;
UPDATE vm SET growth_bytes =
    (SELECT COALESCE(SUM(json_extract(value, '$.size_bytes')), 0)
     FROM json_each(vm.config, '$.disks'));
-- At which parts of a pool in use, in percent, it is told of.
ALTER TABLE host ADD COLUMN warn_at TEXT NOT NULL DEFAULT '[80,90,95]';
