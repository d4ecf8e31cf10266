# Maintenance by pg_cron where there is one, in this database or another one, and by the scheduler
# where there is none.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $sharedir = `pg_config --sharedir`;
chomp $sharedir;
plan skip_all => 'pg_cron is not installed' unless -e "$sharedir/extension/pg_cron.control";

my $node = eros_node('main', "shared_preload_libraries = 'pg_cron, eros'\n");
my $none = q{SELECT count(*) FROM cron.job WHERE jobname LIKE 'eros%'};

# Tests who maintains a database, or comes to.
sub maintained_by
{
	my ($db, $who, $when) = @_;

	return polls_to($node, $db, 'SELECT maintenance_by FROM eros.status', "database $db is maintained by $who $when", $who);
}

# Tests that pg_cron has the jobs of exactly these databases, or comes to.
sub jobs_of
{
	my ($name, @dbs) = @_;

	return polls_to($node, 'postgres',
		q{SELECT string_agg(database || ' ' || jobs, ', ' ORDER BY database)
		FROM (SELECT database, string_agg(substring(command FROM 'eros\.\w+\(\)'), ', ' ORDER BY command) AS jobs
			FROM cron.job WHERE jobname LIKE 'eros%' GROUP BY 1) j},
		$name,
		join ', ', map { "$_ eros.clean_up(), eros.create_partitions(), eros.purge()" } sort @dbs);
}

# absent: loaded, but not created anywhere
$node->safe_psql('postgres', "CREATE DATABASE $_") for 'one', 'two';
create_eros($node, 'one');
maintained_by('one', 'scheduler', 'without pg_cron');
my ($status, $stdout, $stderr) = $node->psql('one', "\\set VERBOSITY verbose\nSELECT eros.use_pg_cron()");
like($stderr, qr/ERROR:  55000: pg_cron is not installed in database "postgres"/, 'use_pg_cron() says that there is none');
like($stderr, qr/HINT:.*CREATE EXTENSION pg_cron/, 'and what to do');
polls_to($node, 'one', 'SELECT last_maintenance IS NOT NULL FROM eros.status', 'the scheduler has done it once');
my $last = value($node, 'one', q{SELECT last_maintenance FROM eros.status});
$node->safe_psql('one', q{SELECT eros.advance_clock('6 minutes')});
polls_to($node, 'one', "SELECT last_maintenance > '$last' FROM eros.status", 'and does it again every five minutes');

# installed later, in another database
$node->safe_psql('postgres', 'CREATE EXTENSION pg_cron');
is(value($node, 'one', 'SELECT eros.use_pg_cron()'), 'postgres', 'use_pg_cron() tells where pg_cron is');
jobs_of('pg_cron, in another database, has the jobs', 'one');
maintained_by('one', 'pg_cron', 'when pg_cron was installed later');
is(value($node, 'one', 'SELECT eros.use_pg_cron()'), 'postgres', 'use_pg_cron() can be called again');
jobs_of('which changes nothing', 'one');

# there before
create_eros($node, 'two');
jobs_of('CREATE EXTENSION eros schedules the jobs where pg_cron is there', 'one', 'two');
maintained_by('two', 'pg_cron', 'at once');

# in pg_cron's own database
create_eros($node, 'postgres');
jobs_of('also in the same database', 'one', 'two', 'postgres');
maintained_by('postgres', 'pg_cron', 'when it is in the same database');

# somebody else's jobs are left alone, a lost one comes back
$node->safe_psql('postgres', q{
	SELECT cron.schedule('eros and psyche', '0 0 1 1 *', 'SELECT 1');
	SELECT cron.unschedule(jobid) FROM cron.job WHERE database = 'two' AND command LIKE '%purge%'});
$node->safe_psql('two', 'SELECT eros.use_pg_cron()');
is(value($node, 'postgres', q{SELECT count(*) FROM cron.job WHERE jobname ~ '^eros .* [0-9]+$' AND database = 'two'}),
	3, 'use_pg_cron() brings a lost job back');
is(value($node, 'postgres', q{SELECT count(*) FROM cron.job WHERE jobname = 'eros and psyche'}), 1, 'others\' jobs are left alone');
$node->safe_psql('postgres', q{SELECT cron.unschedule('eros and psyche')});

# databases that change, go or give EROS up
$node->safe_psql('postgres', 'ALTER DATABASE two RENAME TO zwei');
polls_to($node, 'zwei', running(), 'EROS goes on in a renamed database');
jobs_of('the jobs follow a renamed database', 'one', 'zwei', 'postgres');
$node->safe_psql('one', 'DROP EXTENSION eros');
jobs_of('DROP EXTENSION removes the jobs', 'zwei', 'postgres');
$node->safe_psql('postgres', 'DROP DATABASE zwei');
jobs_of('DROP DATABASE removes the jobs', 'postgres');
$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION eros; ROLLBACK');
polls_to($node, 'postgres', running(), 'EROS goes on after a DROP EXTENSION that was rolled back');
jobs_of('which leaves the jobs', 'postgres');

# pg_cron runs one, here every minute
soon_idle($node, 'postgres');
gated_handler($node, 'postgres');
$node->safe_psql('postgres', 'SELECT eros_touch(1)');
polls_to($node, 'postgres', q{SELECT eros.get('gated', 1) IS NOT NULL}, 'a result is stored');
$node->safe_psql('postgres', q{SELECT eros.disable_handler('gated')});
$node->safe_psql('postgres', q{
	SELECT eros.advance_clock('40 hours');
	DELETE FROM cron.job_run_details;
	SELECT cron.alter_job(jobid, schedule => '* * * * *') FROM cron.job WHERE command LIKE '%purge%'});
polls_to($node, 'postgres', q{
	SELECT count(*) > 0 FROM cron.job_run_details WHERE command LIKE '%eros.purge()%' AND status = 'succeeded'},
	'pg_cron runs a purge');
is(value($node, 'postgres', q{SELECT count(*) FROM eros.status_cache WHERE upper <= eros.now()}),
	0, 'nothing that has expired is left');

# after a restart
$node->restart;
polls_to($node, 'postgres', running(), 'EROS runs after a restart');
maintained_by('postgres', 'pg_cron', 'after a restart');

# pg_cron goes
$node->safe_psql('postgres', 'DROP EXTENSION pg_cron');
($status, $stdout, $stderr) = $node->psql('postgres', 'SELECT eros.use_pg_cron()');
like($stderr, qr/pg_cron is not installed/, 'use_pg_cron() finds that pg_cron is gone');
maintained_by('postgres', 'scheduler', 'when pg_cron is gone');
$node->safe_psql('postgres', 'CREATE EXTENSION pg_cron');
$node->safe_psql('postgres', 'SELECT eros.use_pg_cron()');
jobs_of('and pg_cron has the jobs again when it is back', 'postgres');

# what is not a superuser's, pg_cron, which is one, does not run
$node->safe_psql('postgres', 'CREATE ROLE creator SUPERUSER; CREATE ROLE heir; CREATE DATABASE three');
$node->safe_psql('three', 'SET ROLE creator; CREATE EXTENSION eros');
jobs_of('pg_cron has the jobs of a superuser\'s extension', 'postgres', 'three');
maintained_by('three', 'pg_cron', 'which belongs to a superuser');
my $purge = value($node, 'postgres', q{SELECT command FROM cron.job WHERE database = 'three' AND command LIKE '%purge%'});
$node->safe_psql('three', 'REASSIGN OWNED BY creator TO heir');
jobs_of('it has not those of an extension that was given to another role', 'postgres');
maintained_by('three', 'scheduler', 'which does not belong to a superuser');
($status, $stdout, $stderr) = $node->psql('three', "\\set VERBOSITY verbose\nSELECT eros.use_pg_cron()");
like($stderr, qr/ERROR:  55000: extension "eros" in this database does not belong to a superuser/, 'use_pg_cron() says why');
$node->safe_psql('three', q{CREATE OR REPLACE FUNCTION eros.purge() RETURNS integer LANGUAGE plpgsql AS
	$$ BEGIN RAISE EXCEPTION 'run as %', current_user; END $$});
is($node->psql('three', $purge), 0, 'a job that is left calls nothing of such an owner');
$node->safe_psql('three', 'REASSIGN OWNED BY heir TO creator');
is($node->psql('three', $purge), 3, 'and calls it for a superuser');
jobs_of('it has them again when a superuser has the extension', 'postgres', 'three');
$node->safe_psql('three', 'DROP EXTENSION eros');
jobs_of('which is dropped', 'postgres');

# both in one transaction, and EROS alone
$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION eros CASCADE; DROP EXTENSION pg_cron; COMMIT');
polls_to($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'eros%' AND datname = 'postgres'},
	'both can be dropped at once', 0);
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
