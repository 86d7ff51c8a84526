-- Whether another machine has a layer as well is kept with it, and what accounts use is what their
-- machines are recorded to use.
ALTER TABLE layer ADD COLUMN shared BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE layer SET shared = TRUE WHERE EXISTS
    (SELECT 1 FROM layer AS other WHERE other.id = layer.id AND other.vm <> layer.vm);
CREATE INDEX layer_shared ON layer (vm) WHERE shared;
UPDATE account SET
    snapshots = (SELECT COALESCE(SUM(vm.snapshots), 0) FROM vm WHERE vm.account = account.id),
    bytes = (SELECT COALESCE(SUM(vm.bytes), 0) FROM vm WHERE vm.account = account.id);
