//! Resources and services: opened before every worker, closed after every worker, by name and on purpose.
//!
//!     cargo run --example resources

use longshore::admin::AdminListen;
use longshore::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::Mutex;

#[derive(Serialize, Deserialize)]
struct Visit {
    page: String,
}

struct Settings {
    database: String,
}

/// A connection pool, as one of a database would be.
struct Database {
    rows: Mutex<Vec<String>>,
}

impl Database {
    /// A resource may ask for those before it.
    async fn open(settings: Res<Settings>) -> Result<Self, BoxError> {
        println!("open {}", settings.database);
        Ok(Self { rows: Mutex::default() })
    }

    fn insert(&self, row: String) {
        self.rows.lock().expect("nothing panics while it holds the lock").push(row);
    }

    fn len(&self) -> usize {
        self.rows.lock().expect("nothing panics while it holds the lock").len()
    }
}

impl Resource for Database {
    /// Dropping is not enough for what has to say goodbye. Called once, after the last handler; 5 s at most.
    async fn close(&self) -> Result<(), BoxError> {
        println!("close the database: {} rows", self.len());
        Ok(())
    }
}

async fn count(Json(visit): Json<Visit>, database: Res<Database>) {
    database.insert(visit.page);
}

/// A service: a task of ours, started and stopped in order with the rest.
async fn visit(visits: Publisher<Visit>, database: Res<Database>, cx: Context) -> Result<(), Failure> {
    // `/readyz` says so until it is taken back.
    cx.report_not_ready("warming up");
    println!("warm up with {} rows", database.len());
    cx.report_ready();
    for page in ["/", "/about", "/"] {
        visits.publish(&Visit { page: page.to_owned() }).await?;
    }
    cx.until(Stopping::Draining).await;
    println!("the stop begins");
    Ok(())
}

fn main() -> ExitCode {
    App::from_env("resources")
        .admin(AdminListen::Off)
        // A type that is not ours, or has nothing to close by itself: with a function that closes it.
        .resource_with(
            "settings",
            || async { Ok::<_, BoxError>(Settings { database: "visits".to_owned() }) },
            |settings| async move {
                println!("forget the settings of {}", settings.database);
                Ok(())
            },
        )
        .resource("database", Database::open)
        .producer(Producer::<Visit>::new("visits", "memory:visits"))
        .service("visit", visit)
        .consumer(Consumer::new("count", "memory:visits", count).limit(3)) // then the app stops
        .run()
}
