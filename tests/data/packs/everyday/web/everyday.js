console.log("everyday");
