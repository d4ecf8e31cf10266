-- What an administrator does: the extension, and who may use it how. Then time is made to pass faster.
CREATE EXTENSION eros;
CREATE ROLE app LOGIN;
SELECT eros.grant_application('app');
SELECT eros.grant_developer('dating');
CREATE ROLE watcher LOGIN IN ROLE pg_monitor;
UPDATE eros.phase SET idle_after = idle_after / :speed;
